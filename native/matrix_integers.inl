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
constexpr int kMatrixUnitRows = kP == Precision::int8 ? 5 : 12;

constexpr int kPartBlocks = 3;  // blocks of k of a tile that stay in the first-level cache while rows pass
constexpr int kUnpackedStep = WeightBlock<Precision::int8>::kStep;
constexpr int kUnpackedBytes = WeightBlock<Precision::int8>::factors_at(kBlock);
static_assert(kMaxRows * kTile * sizeof(float) + kPartBlocks * kUnpackedBytes <= kScratchBytes);

// Tiles 0 and 1 hold the inputs' high and low bytes, 2 and 3 the halves of a tile of weights, 4 to 7 the sums.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The sums of a block for one group of rows, and the scales that follow.
struct alignas(64) BlockSums {
  std::int32_t high[2][kRowGroup][kHalfTile], low[2][kRowGroup][kHalfTile];
  const ActivationBlock* a;
  const float* scales;
};

// Adds rows first … first + count of a block to the sums so far, y [row][kTile].
inline void add_rows(const BlockSums& block, int first, int count, float* y) {
  const Vec left = load(block.scales), right = load(block.scales + kHalfTile);
  for (int r = first; r < first + count; ++r) {
    float* row = y + r * kTile;
    const IntVec sum = load_ints(block.low[0][r]) + (load_ints(block.high[0][r]) << 7);
    const IntVec other = load_ints(block.low[1][r]) + (load_ints(block.high[1][r]) << 7);
    store(row, add_scaled(load(row), sum, left, block.a->scale[r]));
    store(row + kHalfTile, add_scaled(load(row + kHalfTile), other, right, block.a->scale[r]));
  }
}

// A part of a tile of weights: `count` blocks of k from block `first` on, as int8.
struct Part {
  const char* weights[kPartBlocks];
  const float* scales[kPartBlocks];
  int depth[kPartBlocks];
  int count;
};

// Multiplies one group of rows by a part of a tile. While the unit multiplies a block, the block before it is added to
// y [row][kTile]; `rows` of the group are wanted. Prefetches `ahead` bytes for every 64 inputs, little by little.
inline void multiply_group(const ActivationBlock* a, const Part& part, int rows, float* y, const char*& next,
                           int ahead) {
  BlockSums sums[2];
  const int quarter = (rows + 3) / 4;
  for (int i = 0; i < part.count; ++i) {
    BlockSums& now = sums[i % 2];
    now.a = a + i;
    now.scales = part.scales[i];
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    int added = 0;
    for (int at = 0; at < part.depth[i]; at += kPadding) {
      const char* weights = part.weights[i] + at / 4 * kUnpackedStep;
      _tile_loadd(0, a[i].bytes.high[0] + at, kBlock);
      _tile_loadd(2, weights, kUnpackedStep);
      _tile_dpbssd(4, 0, 2);
      _tile_loadd(3, weights + kHalfTile * 4, kUnpackedStep);
      _tile_dpbssd(5, 0, 3);
      _tile_loadd(1, a[i].bytes.low[0] + at, kBlock);
      _tile_dpbssd(6, 1, 2);
      _tile_dpbssd(7, 1, 3);
      for (int line = 0; line < ahead; line += kLine) __builtin_prefetch(next + line, 0, 2);
      next += ahead;
      if (i > 0 && added < rows) {
        const int count = rows - added < quarter ? rows - added : quarter;
        add_rows(sums[(i + 1) % 2], added, count, y);
        added += count;
      }
    }
    if (i > 0 && added < rows) add_rows(sums[(i + 1) % 2], added, rows - added, y);
    _tile_stored(4, now.high[0], 64);
    _tile_stored(5, now.high[1], 64);
    _tile_stored(6, now.low[0], 64);
    _tile_stored(7, now.low[1], 64);
  }
  add_rows(sums[(part.count + 1) % 2], 0, rows, y);
}

// Unpacks a block of int4 to int8: factor · q, in the layout of int8.
inline void unpack(const char* block, int depth, char* out) {
  using Block = WeightBlock<Precision::int4>;
  constexpr int kHalf = kGroupInputs / 8;
  const __m512i low_bytes = _mm512_set1_epi16(0x00ff), nibbles = _mm512_set1_epi8(0x0f);
  const char* factors = block + Block::factors_at(depth);
  for (int group = 0; group < depth / kGroupInputs; ++group, factors += kTile)
    for (int half = 0; half < 2; ++half) {
      const __m512i factor = (__m512i)load_bytes(factors + half * kHalfTile);
      const __m512i twice = _mm512_or_si512(_mm512_and_si512(factor, _mm512_set1_epi32(0xffff)),
                                            _mm512_slli_epi32(factor, 16));  // in both halves of 32 bits
      const __m512i eight = _mm512_shuffle_epi8(_mm512_slli_epi32(factor, 3),
                                                _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
      const auto multiplied = [&](__m512i q) {  // modulo 256, so each byte is its own product
        const __m512i even = _mm512_mullo_epi16(_mm512_and_si512(q, low_bytes), twice);
        const __m512i odd = _mm512_mullo_epi16(_mm512_andnot_si512(low_bytes, q), twice);
        return _mm512_sub_epi8(_mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, even, odd), eight);
      };
      for (int step = 0; step < kHalf; ++step) {
        const __m512i w = _mm512_loadu_si512(block + (group * kHalf + step) * Block::kStep + half * 64);
        char* to = out + (group * 2 * kHalf + step) * kUnpackedStep + half * 64;
        _mm512_storeu_si512(to, multiplied(_mm512_and_si512(w, nibbles)));
        _mm512_storeu_si512(to + kHalf * kUnpackedStep,
                            multiplied(_mm512_and_si512(_mm512_srli_epi16(w, 4), nibbles)));
      }
    }
}

// Multiplies rows of inputs that fit into the second-level cache by tiles of weights.
template <Precision kP>
void multiply_tiles(const Product& p, int first_tile, int last_tile) {
  using Block = WeightBlock<kP>;
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup;
  const int steps = rounded_up(p.k, kPadding) / kPadding * groups;
  const int ahead = (int(Block::tile_bytes(p.k)) + steps - 1) / steps;
  auto* sums = reinterpret_cast<float*>(p.scratch);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  for (int t = first_tile; t < last_tile; ++t) {
    const int column = t * kTile;
    const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(t) * Block::tile_bytes(p.k);
    const char* next = b + (groups == 1 ? std::size_t(2 * kAhead) : Block::tile_bytes(p.k));
    for (int r = 0; r < p.m; ++r)
      for (int v = 0; v < kTile; v += kWidth) store(sums + r * kTile + v, p.bias ? load(p.bias + column + v) : Vec{});
    for (int begin = 0; begin < blocks; begin += kPartBlocks) {
      Part part{};
      for (; part.count < kPartBlocks && begin + part.count < blocks; ++part.count) {
        const int depth = block_depth(p.k, begin + part.count);
        const char* block = b + std::size_t(begin + part.count) * Block::kWhole;
        char* to = unpacked + part.count * kUnpackedBytes;
        if constexpr (kP == Precision::int4) unpack(block, depth, to);
        part.weights[part.count] = kP == Precision::int4 ? to : block;
        part.scales[part.count] = reinterpret_cast<const float*>(block + Block::scales_at(depth));
        part.depth[part.count] = depth;
      }
      for (int g = 0; g < groups; ++g) {
        const int rows = p.m - g * kRowGroup < kRowGroup ? p.m - g * kRowGroup : kRowGroup;
        const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(g) * blocks + begin;
        multiply_group(a, part, rows, sums + g * kRowGroup * kTile, next, ahead);
      }
    }
    for (int r = 0; r < p.m; ++r)
      for (int v = 0; v < kTile; v += kWidth) finish(p, r, column + v, load(sums + r * kTile + v));
  }
}

template <Precision kP>
void matrix_unit_product(const Product& p, int first_tile, int last_tile) {
  static constexpr TileShapes shapes;  // not on the stack: gcc 12 may leave out its stores
  _tile_loadconfig(&shapes);
  with_cached_rows(p, block_count(p.k) * int(sizeof(ActivationBlock)),
                   [&](const Product& part) { multiply_tiles<kP>(part, first_tile, last_tile); });
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
