// Kernels for training in bfloat16 on a matrix unit (AMX): packing into tiles, products of packed tiles, and the
// elementwise functions around them.
//
// Contract: every sum is one chain over k in ascending order, in the unit's own arithmetic, whatever the number of rows
// or columns computed together. Callers have checked every size; kernels check nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace gpt2lab {

constexpr int kTileLines = 16;                              // rows of a, or columns of b, in one tile
constexpr int kTileDepth = kBFloat16Inputs;                 // numbers of a line in one tile
constexpr std::size_t kTileSize = kTileLines * kTileDepth;  // numbers

// Lines of numbers in memory: number i of line j is data[j * line + i * step], and one of the two distances is 1. A
// line is a row of a product's first matrix, or a column of its second.
struct Lines {
  const void* data;
  bool wide;  // the numbers are float, not BFloat16
  std::size_t line, step;

  Lines from(std::size_t first, std::size_t number) const {
    const std::size_t at = first * line + number * step;
    if (wide) return {static_cast<const float*>(data) + at, wide, line, step};
    return {static_cast<const BFloat16*>(data) + at, wide, line, step};
  }
};

// A place for rows of results: floats or BFloat16, `row` apart.
struct ResultRows {
  void* data;
  bool wide;
  std::size_t row;

  ResultRows from(std::size_t first, std::size_t number) const {
    const std::size_t at = first * row + number;
    if (wide) return {static_cast<float*>(data) + at, wide, row};
    return {static_cast<BFloat16*>(data) + at, wide, row};
  }
};

// out[m, n] = a · b, plus `before` and the bias where they are not null. Both operands are packed, `k` numbers deep.
struct TileProduct {
  const BFloat16 *a, *b;
  std::size_t a_tiles, b_tiles;  // distance between the packed groups of 16 lines
  int m, n, k;
  const float* before;  // [m, n], the value that each sum starts from; may be out's own memory
  std::size_t before_row;
  const float* bias;  // [n], added last
  ResultRows out;
};

struct TileKernels {
  // Pack `count` lines of `k` numbers, rounded to bfloat16, into groups of 16 lines, `tiles` numbers apart. A group has
  // a tile for every 32 numbers of its lines: as an operand's rows, or as the columns of a second operand, in pairs.
  // Zeros fill the last tiles. `gelu` applies GELU to every number first.
  void (*pack_rows)(const Lines&, int count, int k, bool gelu, BFloat16* out, std::size_t tiles);
  void (*pack_columns)(const Lines&, int count, int k, bool gelu, BFloat16* out, std::size_t tiles);
  void (*multiply)(const TileProduct&);
  void (*gelu_gradient)(const BFloat16* x, const BFloat16* d, int n, BFloat16* out);  // as in Kernels
  // Adds `rows` rows of n numbers to sums [n], row by row.
  void (*add_rows)(const void* x, bool wide, std::size_t row, int rows, int n, float* sums);
  // Returns -log softmax(x)[target] of a row of logits, and turns the row into the gradient in the logits.
  float (*cross_entropy)(BFloat16* x, int n, std::int64_t target);
  void (*round)(const float* x, int n, float scale, BFloat16* out);  // out = x · scale
};

#ifdef GPT2LAB_AMX_KERNELS
const TileKernels& amx_tile_kernels();
#endif

}  // namespace gpt2lab
