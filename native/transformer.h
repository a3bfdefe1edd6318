// GPT-2's forward pass over a batch of sequences of different lengths, float32.
//
// Knows token ids and positions; nothing of text, sampling or files. What a row computes does not depend on the rows
// beside it, on how a prompt is cut into calls, or on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"
#include "memory.h"
#include "packing.h"
#include "thread_pool.h"

namespace gpt2lab {

struct Shape {
  int n_vocab, n_ctx, n_embd, n_head, n_layer;
  int head_dim() const { return n_embd / n_head; }
};

struct Norm {
  FloatArray gain, bias;  // [n_embd]
};

struct Linear {
  PackedMatrix weight;
  FloatArray bias;  // [n], padded with zeros to whole tiles
};

struct Layer {
  Norm ln_1, ln_2;
  Linear attn_qkv, attn_proj, mlp_fc, mlp_proj;
};

struct Weights {
  PackedMatrix wte;  // k = n_embd, n = n_vocab: the output matrix; the input embedding is read out of it
  FloatArray wpe;    // [n_ctx, n_embd]
  std::vector<Layer> layers;
  Norm ln_f;
};

// `count` tokens appended to one sequence; logits are wanted after the last `outputs` of them.
struct Feed {
  int sequence;
  const std::int32_t* tokens;
  int count;
  int outputs;
};

class Transformer {
 public:
  Transformer(const Shape& shape, const Kernels& kernels, ThreadPool& pool);

  Weights weights;  // filled by the owner before the first forward

  KVCache& cache() { return cache_; }

  // Runs every feed and writes logits [sum of outputs, n_vocab], in the order of the feeds. Token ids, counts ≥ 1,
  // 0 ≤ outputs ≤ count and room within n_ctx have been checked by the caller, and no sequence occurs twice. If it
  // throws, for want of memory or threads, every sequence is as it was.
  void forward(const std::vector<Feed>& feeds, float* logits);

 private:
  struct Row {
    int sequence, position, token;
    std::int64_t output;  // row of the logits, or -1
  };
  // Rows of one sequence that attend together.
  struct Span {
    int first, count;
  };

  void run_pass(const std::vector<Row>& rows, float* logits);
  void reserve(int rows);
  void embed(const Row& row, float* x) const;
  const float* normalized(const Norm& norm, int rows, int thread);
  void multiply(const Linear& linear, const float* a, int rows, float* c, Epilogue epilogue, int thread);
  void run_layer(int index, const std::vector<Row>& rows, const std::vector<Span>& spans, bool decoding, int thread);
  void store_kv(int layer, int head, const Row& row, int index);
  void attend(int layer, int head, const std::vector<Row>& rows, const Span& span, int thread);
  void compute_logits(const std::vector<Row>& rows, float* logits, int thread);

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  KVCache cache_;

  int capacity_ = 0;  // rows that the buffers below hold
  FloatArray x_, normed_, qkv_, mixed_, hidden_, partial_;
  std::vector<FloatArray> thread_normed_, thread_scores_;
  std::vector<std::vector<const float*>> thread_keys_, thread_values_;
};

}  // namespace gpt2lab
