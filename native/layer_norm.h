// Layer norm of many rows and its gradient, for training.
//
// Contract: the order of sums over rows does not depend on the number of threads. Callers have checked every size.
#pragma once

#include <cstddef>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

class LayerNorm {
 public:
  LayerNorm(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Writes out[rows, n], the layer norm of each row of x[rows, n]. Throws std::system_error if the threads cannot be
  // started.
  void forward(const float* x, const float* gain, const float* bias, float epsilon, int rows, int n, float* out);

  // Replaces d[rows, n], the gradient of forward()'s output, by the gradient of x. Writes d_gain[n] and d_bias[n].
  // Throws std::bad_alloc, or std::system_error if the threads cannot be started, before it writes anything.
  void backward(const float* x, const float* gain, float epsilon, int rows, int n, float* d, float* d_gain,
                float* d_bias);

 private:
  const Kernels& kernels_;
  ThreadPool& pool_;
  FloatArray sums_;  // [groups of rows][2][n]: partial sums of d_gain and of d_bias
};

}  // namespace gpt2lab
