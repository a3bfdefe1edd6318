// Products of int8 and int4 weights on the CPU's matrix unit (AMX); integers.inl includes this file when it is compiled
// for one.
//
// One instruction multiplies 64 inputs of 16 rows by 16 outputs. The sums are the same integers as in the other
// kernels, and the same float operations follow, so the result is the same to the bit.
#pragma once

#include "integers.inl"

namespace gpt2lab {
namespace {

// The number of rows from which the matrix unit is faster than dot products; it needs int4 unpacked.
template <Precision kP>
constexpr int kMatrixUnitRows = kP == Precision::int8 ? 5 : 9;

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The sums of a block for one group of rows, by half of the tile.
struct alignas(64) BlockSums {
  std::int32_t high[2][kRowGroup][kHalfTile], low[2][kRowGroup][kHalfTile];
};

// Adds row r of a block to the sums so far, y [row][kTile].
inline void add_row(const BlockSums& sums, const ActivationBlock& a, const float* scales, int r, float* y) {
  for (int half = 0; half < 2; ++half) {
    float* row = y + r * kTile + half * kHalfTile;
    const IntVec sum = load_ints(sums.low[half][r]) + (load_ints(sums.high[half][r]) << 7);
    store(row, add_scaled(load(row), sum, load(scales + half * kHalfTile), a.scale[r]));
  }
}

// Blocks of a tile of weights that stay in the first-level cache while rows pass, as int8.
struct WeightPart {
  TileBlock blocks[kPartBlocks];
  int first, count;
};

// Adds the products of 64 inputs, from `at` of a block on, to tiles 4 to 7. Tiles 0 and 1 get the inputs' high and low
// bytes, 2 and 3 the halves of a tile of weights.
inline void multiply_step(const ActivationBlock& a, const char* weights, int at) {
  constexpr int kStep = WeightBlock<Precision::int8>::kStep;
  weights += at / 4 * kStep;
  _tile_loadd(0, a.high[at / kPadding], kPadding);
  _tile_loadd(2, weights, kStep);
  _tile_dpbssd(4, 0, 2);
  _tile_loadd(3, weights + kHalfTile * 4, kStep);
  _tile_dpbssd(5, 0, 3);
  _tile_loadd(1, a.low[at / kPadding], kPadding);
  _tile_dpbssd(6, 1, 2);
  _tile_dpbssd(7, 1, 3);
}

// Multiplies `rows` rows of a group by a part of a tile. While the unit multiplies a block, the block before it is
// added to y [row][kTile]. For every 64 inputs, prefetches `ahead` bytes.
template <bool kWhole>
void multiply_group(const ActivationBlock* a, const WeightPart& part, int rows, float* y, const char*& next,
                    int ahead) {
  constexpr int kQuarter = kRowGroup / 4;
  BlockSums sums[2];
  for (int i = 0; i < part.count; ++i) {
    const TileBlock& block = part.blocks[i];
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    int added = i > 0 ? 0 : rows;
    const BlockSums& before = sums[(i + 1) % 2];
    for (int at = 0; at < block.depth; at += kPadding) {
      multiply_step(a[i], block.weights, at);
      for (int line = 0; line < ahead; line += kLine) __builtin_prefetch(next + line, 0, 2);
      next += ahead;
      if (added == rows) continue;
#pragma GCC unroll 4
      for (int r = 0; r < kQuarter; ++r)
        if (kWhole || added + r < rows) add_row(before, a[i - 1], part.blocks[i - 1].scales, added + r, y);
      added = added + kQuarter < rows ? added + kQuarter : rows;
    }
    for (; added < rows; ++added) add_row(before, a[i - 1], part.blocks[i - 1].scales, added, y);
    BlockSums& now = sums[i % 2];
    _tile_stored(4, now.high[0], 64);
    _tile_stored(5, now.high[1], 64);
    _tile_stored(6, now.low[0], 64);
    _tile_stored(7, now.low[1], 64);
  }
  const int last = part.count - 1;
  for (int r = 0; r < rows; ++r) add_row(sums[last % 2], a[last], part.blocks[last].scales, r, y);
}

// Returns the part of a tile from block `first` on. int4 is unpacked into `unpacked`.
template <Precision kP>
WeightPart part_of(const Product& p, const char* tile, int first, char* unpacked) {
  WeightPart part{};
  part.first = first;
  for (; part.count < kPartBlocks && first + part.count < block_count(p.k); ++part.count) {
    const int number = first + part.count;
    TileBlock& block = part.blocks[part.count];
    block = TileBlock::at<kP>(tile + std::size_t(number) * WeightBlock<kP>::kWhole, block_depth(p.k, number));
    if constexpr (kP == Precision::int4) {
      char* to = unpacked + part.count * kBlock * kTile;
      unpack(block, to);
      block.weights = to;
    }
  }
  asm volatile("" ::: "memory");  // loads of tiles do not tell the compiler that they read memory
  return part;
}

// Multiplies one group of rows by a part of a tile: begins with the bias or with the sums of the parts before, y, and
// ends with the outputs or with those sums.
inline void multiply_part(const Product& p, int column, int group, const WeightPart& part, float* y, const char*& next,
                          int ahead) {
  const int first = group * kRowGroup, rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
  const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(group) * block_count(p.k);
  const bool last = part.first + part.count == block_count(p.k);
  for (int r = 0; r < rows && last; ++r) {  // the outputs lie far apart, and stores that wait for them would pile up
    __builtin_prefetch(p.c + (first + r) * p.ldc + column, 1);
    __builtin_prefetch(p.c + (first + r) * p.ldc + column + kHalfTile, 1);
  }
  for (int r = 0; r < rows && part.first == 0; ++r)
    for (int v = 0; v < kTile; v += kWidth) store(y + r * kTile + v, p.bias ? load(p.bias + column + v) : Vec{});
  if (rows == kRowGroup) multiply_group<true>(a + part.first, part, kRowGroup, y, next, ahead);
  else multiply_group<false>(a + part.first, part, rows, y, next, ahead);
  const Part before = p.enter(Part::finishing);
  for (int r = 0; r < rows && last; ++r)
    for (int v = 0; v < kTile; v += kWidth) finish(p, first + r, column + v, load(y + r * kTile + v));
  p.enter(before);
}

// Multiplies rows of inputs that fit into the second-level cache by tiles of weights.
template <Precision kP>
void multiply_tiles(const Product& p, int first_tile, int last_tile) {
  const std::size_t size = WeightBlock<kP>::tile_bytes(p.k);
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup;
  const int steps = rounded_up(p.k, kPadding) / kPadding * groups, ahead = (int(size) + steps - 1) / steps;
  auto* sums = reinterpret_cast<float*>(p.scratch);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  for (int t = first_tile; t < last_tile; ++t) {
    const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(t) * size;
    const char* next = b + (groups == 1 ? std::size_t(2 * kAhead) : size);
    for (int first = 0; first < blocks; first += kPartBlocks) {
      const Part before = p.enter(Part::unpacking);
      const WeightPart part = part_of<kP>(p, b, first, unpacked);
      p.enter(before);
      for (int g = 0; g < groups; ++g) {
        float* y = sums + (blocks > kPartBlocks ? g * kRowGroup * kTile : 0);
        multiply_part(p, t * kTile, g, part, y, next, ahead);
      }
    }
  }
}

template <Precision kP>
void matrix_unit_product(const Product& p, int first_tile, int last_tile) {
  static constexpr TileShapes shapes;  // not on the stack: gcc 12 may leave out its stores
  _tile_loadconfig(&shapes);
  with_cached_rows(p, block_count(p.k) * int(sizeof(ActivationBlock)), kCachedInputs,
                   [&](const Product& part) { multiply_tiles<kP>(part, first_tile, last_tile); });
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
