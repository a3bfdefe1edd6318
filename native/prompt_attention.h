// Attention of prompts: several rows of each of some sequences, every one of which sees those before it.
//
// Neighbouring rows of a sequence attend together, as many as the kernels take. A row's result is the same whichever
// rows these are, and the same as a decode step's.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"
#include "memory.h"
#include "thread_pool.h"
#include "weights.h"

namespace gpt2lab {

class PromptAttention {
 public:
  // Rounds multiply-adds of floats once if `fused`.
  PromptAttention(const Shape& shape, bool fused, const Kernels& kernels, KVCache& cache, int threads);

  // Prepares a pass. The rows of a sequence are neighbours, with consecutive positions, which the cache has room for.
  void plan(const std::vector<CacheRow>& rows);

  // Stores the keys and values of some rows of qkv, [rows, 3 n_embd].
  void store(int layer, const float* qkv, Share rows) const;

  // Writes a thread's share of the mixed values, [rows, n_embd], once all threads have stored theirs.
  void run(int layer, const float* qkv, float* mixed, int thread);

 private:
  struct Row {
    int position, sequence;  // the latter a place in blocks_
  };
  // Rows of one sequence that attend together.
  struct Span {
    int first, count;
  };
  struct Own {
    FloatArray scores, sums;
    std::vector<const void*> keys, values;
    std::vector<SequenceRow> rows;
    Array<std::byte> scratch;  // of attention over packed keys and values
  };

  void store(int layer, int head, const float* qkv, Share rows) const;
  Share heads(int span, int thread) const;
  void attend(int layer, int head, const Span& span, const float* qkv, float* mixed, Own& own) const;
  void attend_packed(int layer, int head, const Span& span, const float* qkv, float* mixed, Own& own) const;

  Shape shape_;
  bool fused_;
  int max_rows_;  // that a call of the kernels takes
  const Kernels& kernels_;
  KVCache& cache_;
  std::vector<Row> rows_;
  std::vector<Span> spans_;
  std::vector<std::vector<std::byte*>> blocks_;  // of every sequence
  std::vector<Own> own_;                         // one per thread
};

}  // namespace gpt2lab
