#include "matmul.h"

#include <algorithm>
#include <cstdint>

namespace gpt2lab {
namespace {

constexpr int kRowPanels = 4;     // panels of a packed together
constexpr int kDepth = 768;       // largest part of k
constexpr int kMostRows = 1536;   // most rows in a part of a
constexpr int kPanelsAtOnce = 6;  // panels of b per thread: at kDepth half a megabyte, for the second-level cache

// Returns the length of equal parts, at most `most`.
int part_of(int whole, int most) {
  const int parts = (whole + most - 1) / most;
  return (whole + parts - 1) / parts;
}

}  // namespace

struct Matmul::Task {
  MatrixView a, b;
  Terms terms;
  float* c;
  std::size_t ldc;
  int m, n, k;
  int parts;  // parts of the columns; a thread takes one at a time

  // Returns the first column of a part.
  int begin(int part, int panel) const {
    const std::int64_t panels = (n + panel - 1) / panel;
    return std::min(n, int(panels * part / parts) * panel);
  }
};

void Matmul::run(MatrixView a, MatrixView b, Terms terms, float* c, std::size_t ldc, int m, int n, int k) {
  const int panel = kernels_.panel_columns;
  const int at_once = pool_.size() * kPanelsAtOnce * panel;
  const int parts = (n + at_once - 1) / at_once * pool_.size();  // the same number for each thread
  const Task task{a, b, terms, c, ldc, m, n, k, parts};
  const int depth = part_of(k, kDepth), height = rounded_up(part_of(m, kMostRows), kernels_.max_rows);
  reserve(height, depth);
  next_ = 0;
  pool_.run([&](int thread) {
    for (int row = 0; row < m; row += height)
      for (int at = 0; at < k; at += depth) {
        const int rows = std::min(height, m - row), deep = std::min(depth, k - at);
        pack_rows(task, thread, row, rows, at, deep);
        pool_.barrier();
        columns(task, thread, row, rows, at, deep);
        pool_.barrier();
        if (thread == 0) next_ = 0;  // before any thread passes the next barrier
      }
  });
}

void Matmul::reserve(int m, int k) {
  const std::size_t rows = std::size_t(m) * k;
  const std::size_t columns = std::size_t(kPanelsAtOnce) * kernels_.panel_columns * kDepth * pool_.size();
  if (rows_.size() < rows) rows_ = FloatArray(rows);
  if (columns_.size() < columns) columns_ = FloatArray(columns);
}

// Packs the thread's share of the panels of a.
void Matmul::pack_rows(const Task& task, int thread, int row, int rows, int at, int depth) {
  const int panels = (rows + kernels_.max_rows - 1) / kernels_.max_rows, end = panels * (thread + 1) / pool_.size();
  const MatrixView& a = task.a;
  for (int panel = panels * thread / pool_.size(); panel < end; panel += kRowPanels) {
    const int first = panel * kernels_.max_rows, last = std::min(panel + kRowPanels, end) * kernels_.max_rows;
    float* packed = rows_.data() + std::size_t(first) * depth;
    kernels_.pack_rows(a.data + std::size_t(row + first) * a.row + std::size_t(at) * a.column, a.row, a.column,
                       std::min(last, rows) - first, depth, packed);
    if (task.terms.gelu) kernels_.activate(Activation::gelu_new, packed, (last - first) * depth);  // zeros stay zeros
  }
}

void Matmul::columns(const Task& task, int thread, int first_row, int rows, int first_k, int depth) {
  float* packed = columns_.data() + std::size_t(thread) * (columns_.size() / pool_.size());
  for (int part; (part = next_.fetch_add(1, std::memory_order_relaxed)) < task.parts;) {
    const int column = task.begin(part, kernels_.panel_columns);
    const int width = task.begin(part + 1, kernels_.panel_columns) - column;
    if (width == 0) continue;  // fewer panels than threads
    kernels_.pack_columns(task.b.data + first_k * task.b.row + column * task.b.column, task.b.column, task.b.row, width,
                          depth, packed);
    const bool begun = first_k > 0;
    const float* bias = begun || !task.terms.bias ? nullptr : task.terms.bias + column;
    const std::size_t panel = kernels_.max_rows;
    const RowPanels a{rows_.data(), 1, panel, panel * depth};
    float* c = task.c + first_row * task.ldc + column;
    kernels_.matmul_part({a, packed, c, task.ldc, bias, task.terms.add || begun, rows, width, depth, depth});
  }
}

}  // namespace gpt2lab
