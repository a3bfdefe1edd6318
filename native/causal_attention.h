// Causal self-attention for training: whole sequences in float32, and its gradient.
//
// Contract: what comes out of a head depends on that head's numbers alone, in one order of sums, so on no number of
// threads. Scores of some rows at a time are all that is ever held of a head's [time, time]; the backward pass computes
// them again from the logarithms of the softmax's sums. Callers have checked every size.
#pragma once

#include <cstddef>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

// [batch, time, 3, n_head, head_dim]: queries, keys and values side by side, as c_attn makes them.
struct AttentionShape {
  int batch, time, n_head, head_dim;

  std::size_t width() const { return std::size_t(n_head) * head_dim; }
};

class CausalAttention {
 public:
  CausalAttention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // out [batch, time, n_head, head_dim], log_sums [batch, n_head, time]. Throws like Matmul::run.
  void forward(const AttentionShape& shape, const float* qkv, float* out, float* log_sums);

  // d_qkv, like qkv or in its place, from forward()'s queries and sums and from d_out.
  void backward(const AttentionShape& shape, const float* qkv, const float* log_sums, const float* d_out, float* d_qkv);

 private:
  struct Head;
  template <typename F>
  void for_each_head(const AttentionShape& shape, F&& work);
  void forward(const Head& head, const float* qkv, float* out, float* log_sums, float* memory) const;
  void backward(const Head& head, const float* qkv, const float* log_sums, const float* d_out, float* d_qkv,
                float* memory) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  FloatArray memory_;  // of each thread
};

}  // namespace gpt2lab
