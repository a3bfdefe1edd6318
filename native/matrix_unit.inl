// Products of quantised weights on the CPU's matrix unit (AMX); quantized.inl includes this file when it is compiled
// for one.
//
// One instruction multiplies a block of 16 rows by 16 outputs. The sums are the same integers as in the other kernels,
// and the same chain of float operations follows, so the result is the same to the bit.
#pragma once

#include "quantized.inl"

namespace gpt2lab {
namespace {

// The number of rows from which the matrix unit is faster than dot products; it needs 4-bit weights unpacked.
template <Precision kP>
constexpr int kMatrixUnitRows = kP == Precision::q8_0 ? 7 : 13;

// Tiles 0 and 1 hold inputs, 2 and 3 weights, 4 and 5 sums: two of each, so that one is filled while one is used.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {kBlock, kBlock, 64, 64, 64, 64};
  std::uint8_t rows[16] = {kRowGroup, kRowGroup, kBlock / 4, kBlock / 4, kRowGroup, kRowGroup};
};

using Sums = std::int32_t[kRowGroup][kHalfTile];
constexpr int kHeld = 4;  // blocks whose sums are in memory: two are computed, then the two before them are added

// One half of a tile in one part of k: `count` blocks of weights, `stride` bytes apart, and their scales.
struct Part {
  const char* weights;
  const char* scales;
  std::size_t stride, scale_stride;
  int count;
  int ahead;  // bytes of the next tile to prefetch per block
};

// Computes the sums of one block. The compiler requires literal tile numbers.
template <bool kOdd>
inline void multiply_block(const ActivationBlock& a, const char* weights, Sums& sums) {
  if constexpr (kOdd) {
    _tile_loadd(1, a.q, kBlock);
    _tile_loadd(3, weights, kHalfTile * 4);
    _tile_zero(5);
    _tile_dpbssd(5, 1, 3);
    _tile_stored(5, sums, kHalfTile * 4);
  } else {
    _tile_loadd(0, a.q, kBlock);
    _tile_loadd(2, weights, kHalfTile * 4);
    _tile_zero(4);
    _tile_dpbssd(4, 0, 2);
    _tile_stored(4, sums, kHalfTile * 4);
  }
}

template <int kM>
inline void add_block(Vec (&acc)[kM], const Sums& sums, const ActivationBlock& a, const char* scales) {
  const Vec scale = load(reinterpret_cast<const Half*>(scales));
#pragma GCC unroll 16
  for (int r = 0; r < kM; ++r)
    acc[r] = fma(__builtin_convertvector(load_ints(sums[r]), Vec), scale * splat(a.scale[r]), acc[r]);
}

// Adds inputs a[0 … count) · weights to acc[r] for kM rows of a group. Prefetches from `next` little by little, because
// one large request would stall.
template <int kM>
inline void multiply_part(Vec (&acc)[kM], const ActivationBlock* a, const Part& part, const char* next) {
  alignas(64) Sums sums[kHeld];
  int made = 0, added = 0;
  for (; made + 2 <= part.count; made += 2) {
    for (int at = 0; at < 2 * part.ahead; at += kLine) __builtin_prefetch(next + at, 0, 2);
    next += 2 * part.ahead;
    multiply_block<false>(a[made], part.weights + made * part.stride, sums[made % kHeld]);
    multiply_block<true>(a[made + 1], part.weights + (made + 1) * part.stride, sums[(made + 1) % kHeld]);
    if (made < kHeld - 2) continue;
    add_block(acc, sums[added % kHeld], a[added], part.scales + added * part.scale_stride);
    ++added;
    add_block(acc, sums[added % kHeld], a[added], part.scales + added * part.scale_stride);
    ++added;
  }
  if (made < part.count) multiply_block<false>(a[made], part.weights + made * part.stride, sums[made % kHeld]);
  for (; added < part.count; ++added)
    add_block(acc, sums[added % kHeld], a[added], part.scales + added * part.scale_stride);
}

// Unpacks the 4-bit weights of `count` blocks of a tile to bytes, in the layout of q8_0 without scales.
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

// Computes one part of k for kM rows of one group. It starts from the sums `between` parts, or from the bias if that is
// null, and writes the sums to `out`, or the finished outputs if that is null.
template <int kM>
void multiply_group(const Product& p, int row, int column, const ActivationBlock* a, const Part& part, const char* next,
                    const float* between, float* out) {
  Vec acc[kM];
#pragma GCC unroll 16
  for (int r = 0; r < kM; ++r) acc[r] = between ? load(between + r * kTile) : p.bias ? load(p.bias + column) : Vec{};
  multiply_part<kM>(acc, a, part, next);
#pragma GCC unroll 16
  for (int r = 0; r < kM; ++r) out ? store(out + r * kTile, acc[r]) : finish(p, row + r, column, acc[r]);
}

// Multiplies blocks begin … begin + count of a tile for all rows. `sums` [m][kTile] keeps the sums between parts of k.
inline void multiply_tile(const Product& p, int tile, int begin, const Part (&halves)[2], float* sums,
                          const char* next) {
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup, count = halves[0].count;
  for (int g = 0; g < groups; ++g) {
    const int first = g * kRowGroup, rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
    const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(g) * blocks + begin;
    for (int half = 0; half < 2; ++half) {  // the second half finds the inputs in the first-level cache
      float* kept = sums + first * kTile + half * kHalfTile;
      float* between = begin > 0 ? kept : nullptr;
      float* out = begin + count < blocks ? kept : nullptr;
      const int column = tile * kTile + half * kHalfTile;
      with_count<kRowGroup>(rows, [&]<int kM>() {
        multiply_group<kM>(p, first, column, a, halves[half], next, between, out);
      });
      next += count * halves[half].ahead;
    }
  }
}

template <Precision kP>
void matrix_unit_product(const Product& p, int first_tile, int last_tile) {
  using Block = WeightBlock<kP>;
  constexpr bool kPacked = kP == Precision::q4_0;
  constexpr std::size_t kHalfBytes = WeightBlock<Precision::q8_0>::kHalfBytes;
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup;
  const int ahead = (Block::kBytes + 2 * groups - 1) / (2 * groups);
  auto* sums = reinterpret_cast<float*>(p.scratch);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  static constexpr TileShapes shapes;  // not on the stack: gcc 12 may leave out its stores
  _tile_loadconfig(&shapes);
  for (int t = first_tile; t < last_tile; ++t)
    for (int begin = 0; begin < blocks; begin += kPartBlocks) {
      const int count = blocks - begin < kPartBlocks ? blocks - begin : kPartBlocks;
      const auto* b = reinterpret_cast<const char*>(p.b) + (std::size_t(t) * blocks + begin) * Block::kBytes;
      if constexpr (kPacked) unpack(b, count, unpacked);
      const char* weights = kPacked ? unpacked : b;
      const char* scales = b + Block::kScalesAt;
      const std::size_t stride = kPacked ? 2 * kHalfBytes : Block::kBytes;
      const Part halves[2] = {{weights, scales, stride, Block::kBytes, count, ahead},
                              {weights + kHalfBytes, scales + kHalfTile * sizeof(Half), stride, Block::kBytes, count,
                               ahead}};
      multiply_tile(p, t, begin, halves, sums, b + std::size_t(blocks) * Block::kBytes);
    }
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
