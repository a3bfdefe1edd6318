// GPT-2's forward pass over a batch of sequences of different lengths.
//
// It knows token ids and positions, but nothing of text, sampling or files. A row's result does not depend on the rows
// beside it, on how a prompt is cut into calls, or on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "decode_attention.h"
#include "hooks.h"
#include "kernels.h"
#include "kv_cache.h"
#include "memory.h"
#include "meter.h"
#include "prompt_attention.h"
#include "teams.h"
#include "thread_pool.h"
#include "weights.h"

namespace gpt2lab {

// `count` tokens to append to one sequence, with logits for the last `outputs` of them.
struct Feed {
  int sequence;
  const std::int32_t* tokens;
  int count;
  int outputs;
};

class Transformer {
 public:
  Transformer(const Shape& shape, Precision precision, KVPrecision kv_precision, const Kernels& kernels,
              ThreadPool& pool);

  Weights weights;  // filled by the owner before the first forward

  KVCache& cache() { return cache_; }
  Hooks& hooks() { return hooks_; }

  // Runs every feed and writes logits [sum of outputs, n_vocab], in the order of the feeds. The caller has checked
  // token ids, counts ≥ 1, 0 ≤ outputs ≤ count, room within n_ctx, and that no sequence occurs twice. If the call
  // throws, for lack of memory or threads, every sequence is as it was before. `recording`, if given, has room for all
  // rows, in the order of the feeds.
  void forward(const std::vector<Feed>& feeds, float* logits, const Recording* recording = nullptr);

  // Writes the logits [rows, n_vocab] of rows of the residual stream [rows, n_embd] at its end.
  void unembed(const float* x, int rows, float* logits);

  // Writes the products of rows [rows, n_embd] with every token's embedding, [rows, n_vocab].
  void compare(const float* x, int rows, float* products);

  // Writes the length of every token's embedding, [n_vocab].
  void embedding_lengths(float* lengths);

  // Computes W · direction for a layer's output projection of attention, W [n_embd, n_embd]: how far each number of the
  // heads' mixed values moves the residual stream along `direction`.
  void pull_back(int layer, const float* direction, float* out) const;

  // Begins to measure, or ends it and returns the meters of all threads.
  void start_meters();
  std::vector<Meter> stop_meters();

 private:
  struct Row {
    int sequence, position, token;
    std::int64_t output;  // row of the logits, or -1
  };
  // Rows of inputs of a product, and the blocks prepared from them if the product needs such blocks.
  struct Inputs {
    const float* rows;
    const std::byte* prepared;
  };

  void enter(Part part, int thread) {
    if (!meters_.empty()) meters_[thread].enter(part);
  }
  void wait(int thread);
  void run_pass(const std::vector<Row>& rows, float* logits);
  void reserve(int rows);
  void embed(const Row& row, float* x) const;
  void team_barrier(const Teams& teams, int thread);
  Inputs normalized(const Norm& norm, const Teams& teams, int thread);
  Inputs inputs(const float* a, int k, const Teams& teams, int thread);
  void normalize(const Norm& norm, const float* x, int row, float* rows, std::byte* blocks, int thread);
  void prepare(const float* x, int k, int row, std::byte* blocks) const;
  std::size_t prepared_bytes(int k, int rows) const;
  std::size_t widest_bytes(int rows) const;
  std::size_t widest_outputs() const;
  Product product(const PackedMatrix& w, const float* bias, int first, int count, Epilogue epilogue, int thread);
  void multiply(const PackedMatrix& w, const float* bias, Inputs a, const Teams& teams, float* c, Epilogue epilogue,
                int thread, std::byte* blocks = nullptr);
  bool finishes_hidden() const;
  bool mlp_in_parts(const Teams& teams) const;
  void reserve_mlp(int rows);
  void run_mlp(const Layer& layer, const Teams& teams, float* outputs, Epilogue epilogue, int thread);
  Inputs hidden(const Layer& layer, const Teams& teams, int thread);
  void activate(const PackedMatrix& w, const Teams& teams, int thread);
  void run_mlp_in_parts(const Layer& layer, const Teams& teams, float* outputs, Epilogue epilogue, int thread);
  void finish_hidden(const Linear& fc, Inputs normed, Share rows, int first, int count, std::byte* blocks, int thread);
  void run_layer(int index, const std::vector<Row>& rows, const Teams& teams, bool decoding, int thread);
  void visit(Site site, int layer, const std::vector<Row>& rows, const Teams& teams, float* x, std::size_t stride,
             int thread);
  void add_outputs(Site site, int layer, const std::vector<Row>& rows, const Teams& teams, int thread);
  void compute_logits(const std::vector<Row>& rows, float* logits, int thread);

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  KVCache cache_;
  PromptAttention prompts_;
  DecodeAttention decoding_;
  Hooks hooks_;
  bool hooked_ = false;                   // whether the running pass has anything to change or to record
  const Recording* recording_ = nullptr;  // of the running call
  std::size_t recorded_ = 0;              // its rows in earlier passes

  // One thread's own memory.
  struct Own {
    FloatArray normed;
    Array<std::byte> prepared, scratch;
  };

  int capacity_ = 0;  // rows that the buffers below hold
  FloatArray x_, normed_, qkv_, mixed_, hidden_, partial_;
  FloatArray sums_;     // of the second product of MLPs that go in parts
  FloatArray outputs_;  // the output of attention or an MLP before it is added to x_, where it is hooked
  Array<std::byte> prepared_, hidden_blocks_;
  std::vector<Own> own_;
  std::vector<Meter> meters_;  // one for each thread while measuring, otherwise none
};

}  // namespace gpt2lab
