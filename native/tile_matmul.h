// Products of matrices for training on a matrix unit: operands of float32 or bfloat16 are rounded to bfloat16 while
// they are packed, and sums are float32.
//
// Contract: every output is one chain of sums over k in ascending order, in the unit's own arithmetic, so it does not
// depend on the threads or on how they share the work. Callers have checked every size.
#pragma once

#include <atomic>
#include <cstddef>

#include "memory.h"
#include "thread_pool.h"
#include "tile_kernels.h"

namespace gpt2lab {

// The terms of a product besides its matrices.
struct TileTerms {
  const float* bias = nullptr;    // [n]; null for none
  const float* before = nullptr;  // [m, n] to which the products are added; null for none, may be the result itself
  std::size_t before_row = 0;
  bool gelu = false;  // apply GELU to every element of a first
};

class TileMatmul {
 public:
  TileMatmul(const TileKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Computes c[m, n] = a · b with `terms`. The lines of a are its rows [m], those of b its columns [n], each of k
  // numbers. c shares no memory with a, b or the bias. Throws std::bad_alloc, or std::system_error if the threads
  // cannot be started, before it writes anything.
  void run(const Lines& a, const Lines& b, const TileTerms& terms, const ResultRows& c, int m, int n, int k);

 private:
  struct Task;
  void pack_rows(const Task& task, int thread, int row, int rows, int at, int depth);
  void columns(const Task& task, int thread, int row, int rows, int at, int depth);

  const TileKernels& kernels_;
  ThreadPool& pool_;
  Array<BFloat16> rows_;     // a part of a, read by all threads
  Array<BFloat16> columns_;  // each thread's part of b
  FloatArray sums_;          // [m, n] between parts of k, if c is bfloat16
  std::atomic<int> next_{0};
};

}  // namespace gpt2lab
