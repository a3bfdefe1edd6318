#include "matmul.h"

#include <algorithm>

namespace gpt2lab {
namespace {

constexpr int kDepth = 512;       // of k in a part
constexpr int kMostRows = 1536;   // of a in a part
constexpr int kPanelsAtOnce = 8;  // of b, for one thread: with kDepth half a megabyte, in the second cache

int rounded_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

// The length of equal parts, none longer than `most`.
int part_of(int whole, int most) {
  const int parts = (whole + most - 1) / most;
  return (whole + parts - 1) / parts;
}

}  // namespace

struct Matmul::Task {
  MatrixView a, b;
  const float* bias;
  bool add;
  float* c;
  std::size_t ldc;
  int m, n, k;
  int width;  // columns that a thread takes at once
};

void Matmul::run(MatrixView a, MatrixView b, const float* bias, bool add, float* c, std::size_t ldc, int m, int n,
                 int k) {
  const int panel = kernels_.panel_columns;
  const int share = rounded_up((n + pool_.size() - 1) / pool_.size(), panel);  // so that nobody is left without
  const int width = std::min(rounded_up(part_of(share, kPanelsAtOnce * panel), panel), kPanelsAtOnce * panel);
  const Task task{a, b, bias, add, c, ldc, m, n, k, width};
  const int depth = part_of(k, kDepth), height = rounded_up(part_of(m, kMostRows), kernels_.max_rows);
  reserve(std::min(height, rounded_up(m, kernels_.max_rows)), depth);
  next_ = 0;
  pool_.run([&](int thread) {
    for (int row = 0; row < m; row += height)
      for (int at = 0; at < k; at += depth) {
        const int rows = std::min(height, m - row), deep = std::min(depth, k - at);
        const int panels = (rows + kernels_.max_rows - 1) / kernels_.max_rows;
        const int first = panels * thread / pool_.size() * kernels_.max_rows;
        const int last = std::min(panels * (thread + 1) / pool_.size() * kernels_.max_rows, rows);
        pack_rows(task, row + first, last - first, at, deep);
        pool_.barrier();
        columns(task, thread, row, rows, at, deep);
        pool_.barrier();
        if (thread == 0) next_ = 0;
        pool_.barrier();
      }
  });
}

void Matmul::reserve(int m, int k) {
  const std::size_t rows = std::size_t(m) * k;
  const std::size_t columns = std::size_t(kPanelsAtOnce) * kernels_.panel_columns * kDepth * pool_.size();
  if (rows_.size() < rows) rows_ = FloatArray(rows);
  if (columns_.size() < columns) columns_ = FloatArray(columns);
}

void Matmul::pack_rows(const Task& task, int first_row, int rows, int first_k, int depth) {
  if (rows <= 0) return;
  const int within = first_row % rounded_up(part_of(task.m, kMostRows), kernels_.max_rows);
  const float* from = task.a.data + first_row * task.a.row + first_k * task.a.column;
  kernels_.pack_rows(from, task.a.row, task.a.column, rows, depth, rows_.data() + std::size_t(within) * depth);
}

void Matmul::columns(const Task& task, int thread, int first_row, int rows, int first_k, int depth) {
  float* packed = columns_.data() + std::size_t(thread) * (columns_.size() / pool_.size());
  const int parts = (task.n + task.width - 1) / task.width;
  for (int part; (part = next_.fetch_add(1, std::memory_order_relaxed)) < parts;) {
    const int column = part * task.width, width = std::min(task.width, task.n - column);
    kernels_.pack_columns(task.b.data + first_k * task.b.row + column * task.b.column, task.b.column, task.b.row, width,
                          depth, packed);
    const bool begun = first_k > 0;
    kernels_.matmul_part({rows_.data(), packed, task.c + first_row * task.ldc + column, task.ldc,
                          begun || !task.bias ? nullptr : task.bias + column, task.add || begun, rows, width, depth});
  }
}

}  // namespace gpt2lab
