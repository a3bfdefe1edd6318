#include "tile_matmul.h"

#include <algorithm>
#include <cstdint>

namespace gpt2lab {
namespace {

constexpr int kDepth = 1024;           // largest part of k
constexpr int kMostRows = 1024;        // most rows in a part of a
constexpr int kColumnsAtOnce = 256;    // columns of b per thread: at kDepth half a megabyte, for the second-level cache
constexpr int kBoth = 2 * kTileLines;  // lines that are multiplied together

// Returns the length of equal parts, at most `most`, in multiples of `unit`.
int part_of(int whole, int most, int unit) {
  const int parts = (whole + most - 1) / most;
  return rounded_up((whole + parts - 1) / parts, unit);
}

}  // namespace

struct TileMatmul::Task {
  Lines a, b;
  TileTerms terms;
  ResultRows c;
  float* sums;  // where sums are between parts of k, [m, n]; null if in c
  int m, n, k;
  int parts;  // parts of the columns; a thread takes one at a time

  // Returns the first column of a part.
  int begin(int part) const {
    const std::int64_t blocks = (n + kBoth - 1) / kBoth;
    return std::min(n, int(blocks * part / parts) * kBoth);
  }

  TileProduct product(int row, int column, int rows, int width, int at, int depth) const {
    TileProduct p{};
    p.m = rows, p.n = width, p.k = depth;
    p.a_tiles = p.b_tiles = std::size_t(kTileLines) * rounded_up(depth, kTileDepth);
    const bool first = at == 0, last = at + depth == k;
    const ResultRows between = sums ? ResultRows{sums, true, std::size_t(n)} : c;
    p.out = (last ? c : between).from(row, column);
    p.before = first ? terms.before : static_cast<const float*>(between.data);
    p.before_row = first ? terms.before_row : between.row;
    if (p.before) p.before += row * p.before_row + column;
    p.bias = last && terms.bias ? terms.bias + column : nullptr;
    return p;
  }
};

void TileMatmul::run(const Lines& a, const Lines& b, const TileTerms& terms, const ResultRows& c, int m, int n, int k) {
  const int at_once = pool_.size() * kColumnsAtOnce;
  const int parts = (n + at_once - 1) / at_once * pool_.size();  // the same number for each thread
  const int depth = part_of(k, kDepth, kTileDepth), height = part_of(m, kMostRows, kBoth);
  const std::size_t rows = std::size_t(height) * depth;
  const std::size_t columns = std::size_t(kColumnsAtOnce + kBoth) * depth * pool_.size();
  const bool apart = !c.wide && depth < k;
  if (rows_.size() < rows) rows_ = Array<BFloat16>(rows);
  if (columns_.size() < columns) columns_ = Array<BFloat16>(columns);
  if (apart && sums_.size() < std::size_t(m) * n) sums_ = FloatArray(std::size_t(m) * n);
  const Task task{a, b, terms, c, apart ? sums_.data() : nullptr, m, n, k, parts};
  next_ = 0;
  pool_.run([&](int thread) {
    for (int row = 0; row < m; row += height)
      for (int at = 0; at < k; at += depth) {
        const int some = std::min(height, m - row), deep = std::min(depth, k - at);
        pack_rows(task, thread, row, some, at, deep);
        pool_.barrier();
        this->columns(task, thread, row, some, at, deep);
        pool_.barrier();
        if (thread == 0) next_ = 0;  // before any thread passes the next barrier
      }
  });
}

// Packs the thread's share of the groups of a.
void TileMatmul::pack_rows(const Task& task, int thread, int row, int rows, int at, int depth) {
  const int groups = (rows + kTileLines - 1) / kTileLines;
  const int begin = groups * thread / pool_.size() * kTileLines;
  const int end = std::min(rows, groups * (thread + 1) / pool_.size() * kTileLines);
  const std::size_t tiles = std::size_t(kTileLines) * rounded_up(depth, kTileDepth);
  BFloat16* packed = rows_.data() + begin / kTileLines * tiles;
  if (begin < end) kernels_.pack_rows(task.a.from(row + begin, at), end - begin, depth, task.terms.gelu, packed, tiles);
}

void TileMatmul::columns(const Task& task, int thread, int row, int rows, int at, int depth) {
  BFloat16* packed = columns_.data() + std::size_t(thread) * (columns_.size() / pool_.size());
  for (int part; (part = next_.fetch_add(1, std::memory_order_relaxed)) < task.parts;) {
    const int column = task.begin(part), width = task.begin(part + 1) - column;
    if (width == 0) continue;  // fewer blocks than threads
    TileProduct product = task.product(row, column, rows, width, at, depth);
    kernels_.pack_columns(task.b.from(column, at), width, depth, false, packed, product.b_tiles);
    product.a = rows_.data(), product.b = packed;
    kernels_.multiply(product);
  }
}

}  // namespace gpt2lab
