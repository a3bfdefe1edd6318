// Attention over keys and values of int8 on the CPU's matrix unit (AMX); int8_attention.inl includes this file when it
// is compiled for one.
//
// The unit multiplies the high and the low bytes of 16 rows by half a block of keys, or by 16 columns of values. The
// sums are the same integers as in the other kernels.
#pragma once

#include "int8_attention.inl"

namespace gpt2lab {
namespace {

// Tiles for products of `depth` bytes: 0 and 1 hold the rows' high and low bytes, 2 and 3 what they are multiplied by,
// 4 to 7 the sums.
struct TileDepth : TileShapes {
  explicit constexpr TileDepth(int depth) {
    row_bytes[0] = row_bytes[1] = std::uint16_t(depth);
    rows[2] = rows[3] = std::uint8_t(depth / 4);
  }
};

inline void zero_sums() {
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

// Adds the products of the inputs from `at` of a block on with two tiles, whose rows are `distance` bytes apart.
inline void multiply_inputs(const ActivationBlock& a, int at, const char* p, int distance) {
  const int part = at / kPadding, first = at % kPadding;
  _tile_loadd(0, a.high[part][0] + first, kPadding);
  _tile_loadd(2, p, distance);
  _tile_dpbssd(4, 0, 2);
  _tile_loadd(3, p + kHalfTile * 4, distance);
  _tile_dpbssd(5, 0, 3);
  _tile_loadd(1, a.low[part][0] + first, kPadding);
  _tile_dpbssd(6, 1, 2);
  _tile_dpbssd(7, 1, 3);
}

inline void store_sums(BlockSums& sums) {
  _tile_stored(4, sums.high[0], 64);
  _tile_stored(5, sums.high[1], 64);
  _tile_stored(6, sums.low[0], 64);
  _tile_stored(7, sums.low[1], 64);
}

// Returns a row's sums of half a tile.
inline IntVec whole_sums(const BlockSums& sums, int half, int row) {
  return load_ints(sums.low[half][row]) + (load_ints(sums.high[half][row]) << 7);
}

// Turns the sums of a block of keys with query numbers `number` · kBlock … into scores.
inline void store_block_scores(const Int8Rows& rows, const BlockSums& sums, const char* block, int number,
                               float* scores) {
  const auto* scales = reinterpret_cast<const float*>(block + rows.block.scales_at());
  for (int half = 0; half < 2; ++half) {
    const Vec key_scales = load(scales + half * kHalfTile);
    for (int r = 0; r < rows.a.m; ++r)
      store_scores(scores + r * kSpan + half * kHalfTile, whole_sums(sums, half, r), key_scales,
                   rows.queries[number].scale[r], number > 0);
  }
}

void score_tiles(const Int8Rows& rows, const PackedRun& run, int count) {
  static constexpr TileDepth whole_parts(kPadding), half_parts(kPadding / 2);
  const bool whole = rows.block.stride % kPadding == 0;
  const int depth = whole ? kPadding : kPadding / 2, numbers = block_count(rows.a.head_dim);
  _tile_loadconfig(whole ? &whole_parts : &half_parts);
  asm volatile("" ::: "memory");  // loads of tiles do not tell the compiler that they read memory
  BlockSums sums[2];
  for (int i = 0; i <= count * numbers; ++i) {  // while the unit multiplies, the block before becomes scores
    const int b = i / numbers, number = i % numbers;
    if (i < count * numbers) {
      zero_sums();
      for (int at = 0; at < rows.query_depth(number); at += depth)
        multiply_inputs(rows.queries[number], at, run.at(b) + (number * kBlock + at) * kTile, PackedBlock::kKeyStep);
    }
    if (i > 0) {
      const int before = (i - 1) / numbers;
      store_block_scores(rows, sums[(i - 1) % 2], run.at(before), (i - 1) % numbers, rows.scores + before * kTile);
    }
    if (i < count * numbers) store_sums(sums[i % 2]);
    asm volatile("" ::: "memory");
  }
  _tile_release();
}

void mix_tiles(const Int8Rows& rows, const PackedRun& run, int count) {
  static constexpr TileDepth shape(kTile);
  _tile_loadconfig(&shape);
  asm volatile("" ::: "memory");
  for (int column = 0; column < rows.block.stride; column += kTile) {
    zero_sums();
    for (int b = 0; b < count; ++b)
      multiply_inputs(*rows.probabilities, b * kTile, run.at(b) + rows.block.values_at() + column * 4,
                      rows.block.value_step());
    BlockSums sums;
    store_sums(sums);
    asm volatile("" ::: "memory");
    for (int r = 0; r < rows.a.m; ++r)
      for (int half = 0; half < 2; ++half)
        store_ints(rows.whole + r * rows.block.stride + column + half * kHalfTile, whole_sums(sums, half, r));
  }
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
