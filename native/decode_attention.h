// Attention of a decode step: one row of each of many sequences.
//
// Sequences that share blocks from their beginning on, because they are forks of one text, are taken in groups that
// read these blocks once. The threads divide groups and heads by their cost, and meet only at the end of a layer.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"
#include "memory.h"
#include "weights.h"

namespace gpt2lab {

class DecodeAttention {
 public:
  // Rounds multiply-adds of floats once if `fused`.
  DecodeAttention(const Shape& shape, bool fused, const Kernels& kernels, KVCache& cache, int threads);

  // Prepares a step. Every row is the last position of its sequence, and no sequence occurs twice.
  void plan(const std::vector<CacheRow>& rows);

  // Does a thread's share of a layer: stores keys and values of qkv [rows, 3 n_embd] and writes the mixed values,
  // [rows, n_embd]. Other threads may be in their shares of the same layer.
  void run(int layer, const float* qkv, float* mixed, int thread);

 private:
  // A row, by its place in the matrices, with its sequence's blocks.
  struct Member {
    int index, position;
    std::vector<std::byte*> blocks;
  };
  // Members from `first` on whose first `shared` blocks are the same.
  struct Group {
    int first, count, shared;
    std::int64_t cost;  // of one head
  };
  struct Own {
    FloatArray queries, scores, sums;
    Array<std::byte> scratch;  // of attention over packed keys and values
    std::vector<SequenceRow> rows;
  };

  void group_members();
  void store(int layer, int item, const float* qkv) const;
  void attend(int layer, int item, int next, const float* qkv, float* mixed, Own& own) const;
  int first_item(int thread) const;
  const Group& group_of(int item) const { return groups_[item / shape_.n_head]; }
  int head_of(int item) const { return item % shape_.n_head; }

  Shape shape_;
  bool fused_;
  int max_rows_;  // that a call of the kernels takes
  const Kernels& kernels_;
  KVCache& cache_;
  std::vector<Member> members_;  // sequences with a common beginning are neighbours
  std::vector<Group> groups_;
  std::vector<Own> own_;  // one per thread
};

}  // namespace gpt2lab
