// Products of quantised weights on the CPU's matrix unit (AMX); included by quantized.inl where it is compiled for one.
//
// One instruction multiplies a block of 16 rows with 16 outputs. The sums are the same integers as everywhere, and the
// float arithmetic behind them the same chain, so the result is the same to the bit.
#pragma once

#include "quantized.inl"

namespace gpt2lab {
namespace {

constexpr int kMatrixUnitRows = 5;  // from so many rows on it is faster than dot products

// Tiles 0 and 1 hold inputs, 2 and 3 weights, 4 and 5 sums: two of each, so that one can be filled while one is used.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {kBlock, kBlock, 64, 64, 64, 64};
  std::uint8_t rows[16] = {kRowGroup, kRowGroup, kBlock / 4, kBlock / 4, kRowGroup, kRowGroup};
};

using Sums = std::int32_t[kRowGroup][kHalfTile];

// The compiler wants the tiles' numbers as digits.
template <int kWhich>
inline void multiply_block(const ActivationBlock& a, const char* weights, Sums& sums) {
  if constexpr (kWhich == 0) {
    _tile_loadd(0, a.q, kBlock);
    _tile_loadd(2, weights, kHalfTile * 4);
    _tile_zero(4);
    _tile_dpbssd(4, 0, 2);
    _tile_stored(4, sums, kHalfTile * 4);
  } else {
    _tile_loadd(1, a.q, kBlock);
    _tile_loadd(3, weights, kHalfTile * 4);
    _tile_zero(5);
    _tile_dpbssd(5, 1, 3);
    _tile_stored(5, sums, kHalfTile * 4);
  }
}

template <int kM>
inline void add_block(Vec (&acc)[kM], const Sums& sums, const ActivationBlock& a, const char* scales) {
  const Vec scale = load(reinterpret_cast<const Half*>(scales));
  for (int r = 0; r < kM; ++r)
    acc[r] = fma(__builtin_convertvector(load_ints(sums[r]), Vec), scale * splat(a.scale[r]), acc[r]);
}

// One half of a tile in one part of k: `count` blocks of weights, `stride` bytes apart, and their scales.
struct Part {
  const char* weights;
  const char* scales;
  std::size_t stride, scale_stride;
  int count;
};

// acc[r] += inputs a[0 … count) · weights for kM rows of a group. The sums of a block are added up while the next are made.
template <int kM>
inline void multiply_part(Vec (&acc)[kM], const ActivationBlock* a, const Part& part) {
  alignas(64) Sums sums[2];
  const char *w = part.weights, *s = part.scales;
  multiply_block<0>(a[0], w, sums[0]);
  int i = 1;
  for (; i + 1 < part.count; i += 2) {
    multiply_block<1>(a[i], w + i * part.stride, sums[1]);
    add_block(acc, sums[0], a[i - 1], s + (i - 1) * part.scale_stride);
    multiply_block<0>(a[i + 1], w + (i + 1) * part.stride, sums[0]);
    add_block(acc, sums[1], a[i], s + i * part.scale_stride);
  }
  if (i < part.count) {
    multiply_block<1>(a[i], w + i * part.stride, sums[1]);
    add_block(acc, sums[0], a[i - 1], s + (i - 1) * part.scale_stride);
    add_block(acc, sums[1], a[i], s + i * part.scale_stride);
  } else {
    add_block(acc, sums[0], a[i - 1], s + (i - 1) * part.scale_stride);
  }
}

// 4-bit weights of `count` blocks of a tile as bytes, in the layout of q8_0 without scales.
inline void unpack(const char* blocks, int count, char* out) {
  using Block = WeightBlock<Precision::q4_0>;
  const __m512i low = _mm512_set1_epi8(0x0f), eight = _mm512_set1_epi8(8);
  for (int i = 0; i < count; ++i, blocks += Block::kBytes)
    for (int half = 0; half < 2; ++half, out += WeightBlock<Precision::q8_0>::kHalfBytes)
      for (int step = 0; step < 4; ++step) {
        const __m512i w = _mm512_load_si512(blocks + half * Block::kHalfBytes + step * 64);
        _mm512_store_si512(out + step * 64, _mm512_sub_epi8(_mm512_and_si512(w, low), eight));
        _mm512_store_si512(out + (step + 4) * 64,
                           _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(w, 4), low), eight));
      }
}

// Part `begin … + part.count` of k of half a tile for all rows; `sums` [m][kTile] keeps what is between parts.
template <Precision kP>
void multiply_rows(const Product& p, int column, int begin, const Part& part, float* sums, const char* next_tile) {
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup;
  const std::size_t ahead = std::size_t(part.count) * WeightBlock<kP>::kBytes / (2 * groups) + kLine;
  next_tile += column % kTile / kHalfTile * groups * ahead;
  for (int g = 0; g < groups; ++g, next_tile += ahead) {
    for (std::size_t at = 0; at < ahead; at += kLine) __builtin_prefetch(next_tile + at, 0, 2);
    const int first = g * kRowGroup, rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
    const ActivationBlock* a = p.quantized + std::size_t(g) * blocks + begin;
    const bool last = begin + part.count == blocks;
    const auto compute = [&]<int kM>() {
      Vec acc[kM];
      for (int r = 0; r < kM; ++r)
        acc[r] = begin > 0 ? load(sums + (first + r) * kTile + column % kTile)
                           : p.bias ? load(p.bias + column) : Vec{};
      multiply_part<kM>(acc, a, part);
      for (int r = 0; r < kM; ++r)
        last ? finish(p, first + r, column, acc[r]) : store(sums + (first + r) * kTile + column % kTile, acc[r]);
    };
    with_count<kRowGroup>(rows, compute);
  }
}

template <Precision kP>
void matrix_unit_product(const Product& p, int first_tile, int last_tile) {
  using Block = WeightBlock<kP>;
  const int blocks = block_count(p.k);
  auto* sums = reinterpret_cast<float*>(p.scratch);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  for (int t = first_tile; t < last_tile; ++t)
    for (int begin = 0; begin < blocks; begin += kPartBlocks) {
      const int count = blocks - begin < kPartBlocks ? blocks - begin : kPartBlocks;
      const auto* b = reinterpret_cast<const char*>(p.b) + (std::size_t(t) * blocks + begin) * Block::kBytes;
      if constexpr (kP == Precision::q4_0) unpack(b, count, unpacked);
      for (int half = 0; half < 2; ++half) {
        constexpr bool kPacked = kP == Precision::q4_0;
        constexpr int kBytesOfHalf = WeightBlock<Precision::q8_0>::kHalfBytes;
        const Part part{(kPacked ? unpacked : b) + half * kBytesOfHalf,
                        b + Block::kScalesAt + half * kHalfTile * sizeof(Half),
                        std::size_t(kPacked ? 2 * kBytesOfHalf : Block::kBytes), std::size_t(Block::kBytes), count};
        multiply_rows<kP>(p, t * kTile + half * kHalfTile, begin, part, sums,
                          b + std::size_t(blocks) * Block::kBytes);
      }
    }
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
