// Causal self-attention for training in bfloat16 on a matrix unit, and its gradient.
//
// Contract: as in causal_attention.h, but queries, keys, values, probabilities and gradients are rounded to bfloat16;
// scores, softmax and sums are float32.
#pragma once

#include <cstddef>

#include "causal_attention.h"
#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"
#include "tile_kernels.h"

namespace gpt2lab {

class TileAttention {
 public:
  TileAttention(const Kernels& kernels, const TileKernels& tiles, ThreadPool& pool)
      : kernels_(kernels), tiles_(tiles), pool_(pool) {}

  // See CausalAttention.
  void forward(const AttentionShape& shape, const BFloat16* qkv, BFloat16* out, float* log_sums);
  void backward(const AttentionShape& shape, const BFloat16* qkv, const float* log_sums, const BFloat16* d_out,
                BFloat16* d_qkv);

 private:
  struct Head;
  struct Buffers;
  template <typename F>
  void for_each_head(const AttentionShape& shape, F&& work);
  void forward(const Head& head, const BFloat16* qkv, BFloat16* out, float* log_sums, const Buffers& b) const;
  void backward(const Head& head, const BFloat16* qkv, const float* log_sums, const BFloat16* d_out, BFloat16* d_qkv,
                const Buffers& b) const;
  void store(const float* x, int rows, int dim, BFloat16* out, std::size_t row) const;

  const Kernels& kernels_;
  const TileKernels& tiles_;
  ThreadPool& pool_;
  FloatArray memory_;  // one equal part per thread
};

}  // namespace gpt2lab
