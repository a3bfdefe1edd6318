// Products of float32 matrices for training, where weights change too often to be packed ahead.
//
// Contract: every output is one chain of sums over k in ascending order that starts from the bias or from the output's
// earlier value, so it does not depend on the threads or on how they share the work. Callers have checked every size.
#pragma once

#include <atomic>
#include <cstddef>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

// A matrix in memory: element (i, j) is data[i * row + j * column], and one of the two distances is 1.
struct MatrixView {
  const float* data;
  std::size_t row, column;
};

// The terms of a product besides its matrices.
struct Terms {
  const float* bias = nullptr;  // [n], the sums start from it; null for none
  bool add = false;             // start the sums from c instead of a bias
  bool gelu = false;            // apply GELU to every element of a first
};

class Matmul {
 public:
  Matmul(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Computes c[m, n] = a[m, k] · b[k, n] with `terms`; rows of c lie `ldc` apart. c shares no memory with a, b or the
  // bias. Throws std::bad_alloc, or std::system_error if the threads cannot be started, before it writes anything.
  void run(MatrixView a, MatrixView b, Terms terms, float* c, std::size_t ldc, int m, int n, int k);

 private:
  struct Task;
  void reserve(int m, int k);
  void pack_rows(const Task& task, int thread, int row, int rows, int at, int depth);
  void columns(const Task& task, int thread, int first_row, int rows, int first_k, int depth);

  const Kernels& kernels_;
  ThreadPool& pool_;
  FloatArray rows_;     // panels of a part of a, read by all threads
  FloatArray columns_;  // each thread's panels of its part of b
  std::atomic<int> next_{0};
};

}  // namespace gpt2lab
