// Products of float32 matrices for training, where weights change too often to be packed ahead.
//
// Contract: every output is one chain of sums over k in ascending order, begun with the bias or with what was there, so
// it depends neither on the number of threads nor on who computes what. Callers have checked every size.
#pragma once

#include <atomic>
#include <cstddef>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

// A matrix as it lies in memory: element (i, j) is data[i * row + j * column], and one of the two distances is 1.
struct MatrixView {
  const float* data;
  std::size_t row, column;
};

// What goes into a product besides its matrices.
struct Terms {
  const float* bias = nullptr;  // [n], begins the sums; null for none
  bool add = false;             // to what is in c, instead of a bias
  bool gelu = false;            // of every element of a, first
};

class Matmul {
 public:
  Matmul(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // c[m, n] = a[m, k] · b[k, n], with `terms`; rows of c `ldc` apart. c shares no memory with the others. Throws
  // std::bad_alloc, or std::system_error if the threads cannot be started, having written nothing.
  void run(MatrixView a, MatrixView b, Terms terms, float* c, std::size_t ldc, int m, int n, int k);

 private:
  struct Task;
  void reserve(int m, int k);
  void pack_rows(const Task& task, int thread, int row, int rows, int at, int depth);
  void columns(const Task& task, int thread, int first_row, int rows, int first_k, int depth);

  const Kernels& kernels_;
  ThreadPool& pool_;
  FloatArray rows_;     // panels of a part of a, which all threads read
  FloatArray columns_;  // for each thread the panels of its part of b
  std::atomic<int> next_{0};
};

}  // namespace gpt2lab
