// Causal self-attention for training: whole sequences in float32, and its gradient.
//
// Contract: a head's output depends on that head's numbers alone, summed in one fixed order, so the number of threads
// does not change it. Only the scores of a few rows of a head's [time, time] are in memory at a time; the backward pass
// recomputes them from the logarithms of the softmax's sums. Callers have checked every size.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

// The shape of qkv, [batch, time, 3, n_head, head_dim]: queries, keys and values side by side, as c_attn makes them.
struct AttentionShape {
  int batch, time, n_head, head_dim;
  float scale = 1 / std::sqrt(float(head_dim));  // of the scores

  std::size_t width() const { return std::size_t(n_head) * head_dim; }
};

class CausalAttention {
 public:
  CausalAttention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Writes out [batch, time, n_head, head_dim] and log_sums [batch, n_head, time]. Throws like Matmul::run.
  void forward(const AttentionShape& shape, const float* qkv, float* out, float* log_sums);

  // Writes d_qkv, laid out like qkv (and possibly in its place), from forward()'s qkv and log_sums and from d_out.
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
  FloatArray memory_;  // one equal part per thread
};

}  // namespace gpt2lab
