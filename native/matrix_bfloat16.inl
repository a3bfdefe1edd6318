// Products of bfloat16 inputs and weights on the CPU's matrix unit (AMX); kernels.inl includes this file when it is
// compiled for one.
//
// The same instructions compute every sum in the order of k, whatever the number of rows. Quantised weights are
// unpacked to bfloat16 one part of a tile at a time, which pays off for the many rows of a prompt.
#pragma once

#include "matrix_unit.inl"

namespace gpt2lab {
namespace {

constexpr int kStreamBlocks = 12;      // blocks of k of a tile that stay in the first-level cache while rows pass
constexpr int kPairBytes = kTile * 4;  // two inputs of all outputs of a tile
constexpr int kBlockBytes = kBlock / 2 * kPairBytes;  // bytes of a block of bfloat16 weights
static_assert(kStreamBlocks <= kPartBlocks);          // the scratch memory holds kPartBlocks

// Tiles 0 and 1 hold inputs of two groups of rows, 2 and 3 the halves of a tile of weights, 4 to 7 the sums.
struct alignas(64) BFloat16Shapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void round_inputs(const float* x, int k, int row, BFloat16Block* out) {
  for (int begin = 0; begin < k; begin += kBlock, ++out) {
    float padded[kBlock] = {};
    const float* block = x + begin;
    if (begin + kBlock > k) {
      __builtin_memcpy(padded, block, (k - begin) * sizeof(float));
      block = padded;
    }
    const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)load(block + kWidth), (__m512)load(block));
    __builtin_memcpy(out->x[row % kRowGroup], &rounded, sizeof rounded);
  }
}

// Stores four inputs of 16 outputs as two rows of pairs: [2][16][2].
inline void store_pairs(IntVec bytes, Vec scale, char* out) {
  const auto rounded = [&](IntVec q) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)(__builtin_convertvector(q, Vec) * scale)));
  };
  const auto pair = [&](IntVec first, IntVec second) {
    return _mm512_or_si512(rounded(first), _mm512_slli_epi32(rounded(second), 16));
  };
  _mm512_store_si512(out, pair((bytes << 24) >> 24, (bytes << 16) >> 24));
  _mm512_store_si512(out + kPairBytes, pair((bytes << 8) >> 24, bytes >> 24));
}

template <Precision kP>
void unpack_to_bfloat16(const char* blocks, int count, char* out) {
  using Block = WeightBlock<kP>;
  for (int i = 0; i < count; ++i, blocks += Block::kBytes, out += kBlockBytes)
    for (int half = 0; half < 2; ++half) {
      const Vec scale = load(reinterpret_cast<const Half*>(blocks + Block::kScalesAt) + half * kHalfTile);
      for (int step = 0; step < kBlock / 4; ++step) {
        const IntVec q = signed_weights<kP>(blocks + half * Block::kHalfBytes, step);
        store_pairs(q, scale, out + step * 2 * kPairBytes + half * 64);
      }
    }
}

// Adds inputs · weights to sums[group][row][kTile] for one or two groups of rows and `count` blocks of k.
template <bool kTwo>
inline void multiply_bfloat16(const BFloat16Block* first, const BFloat16Block* second, const char* weights, int count,
                              float* sums, const char* next, int ahead) {
  constexpr int kSumBytes = kTile * sizeof(float);
  float* more = sums + kRowGroup * kTile;
  _tile_loadd(4, sums, kSumBytes);
  _tile_loadd(5, sums + kHalfTile, kSumBytes);
  if (kTwo) {
    _tile_loadd(6, more, kSumBytes);
    _tile_loadd(7, more + kHalfTile, kSumBytes);
  }
  for (int i = 0; i < count; ++i, weights += kBlockBytes) {
    for (int at = 0; at < ahead; at += kLine) __builtin_prefetch(next + at, 0, 2);
    next += ahead;
    _tile_loadd(2, weights, kPairBytes);
    _tile_loadd(3, weights + 64, kPairBytes);
    _tile_loadd(0, first[i].x, 64);
    _tile_dpbf16ps(4, 0, 2);
    _tile_dpbf16ps(5, 0, 3);
    if (kTwo) {
      _tile_loadd(1, second[i].x, 64);
      _tile_dpbf16ps(6, 1, 2);
      _tile_dpbf16ps(7, 1, 3);
    }
  }
  _tile_stored(4, sums, kSumBytes);
  _tile_stored(5, sums + kHalfTile, kSumBytes);
  if (kTwo) {
    _tile_stored(6, more, kSumBytes);
    _tile_stored(7, more + kHalfTile, kSumBytes);
  }
}

// Multiplies blocks begin … begin + count of a tile for whole groups of rows; `sums` is [rows][kTile].
inline void multiply_tile_bfloat16(const Product& p, int groups, int begin, int count, const char* weights, float* sums,
                                   const char* next, int ahead) {
  const int blocks = block_count(p.k);
  const auto* a = reinterpret_cast<const BFloat16Block*>(p.prepared) + begin;
  for (int g = 0; g < groups; g += 2) {
    const BFloat16Block *first = a + std::size_t(g) * blocks, *second = first + blocks;
    float* out = sums + g * kRowGroup * kTile;
    if (g + 1 < groups) multiply_bfloat16<true>(first, second, weights, count, out, next, ahead);
    else multiply_bfloat16<false>(first, second, weights, count, out, next, ahead);
    next += count * ahead;
  }
}

template <Precision kP>
void multiply_rows_bfloat16(const Product& p, int first_tile, int last_tile) {
  constexpr bool kUnpacks = kP != Precision::bfloat16;
  constexpr Precision kBlocks = kUnpacks ? kP : Precision::q8_0;  // bfloat16 has no WeightBlock
  constexpr int kStored = kUnpacks ? WeightBlock<kBlocks>::kBytes : kBlockBytes;
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup, pairs = (groups + 1) / 2;
  const int ahead = (kStored + pairs - 1) / pairs;
  auto* sums = reinterpret_cast<float*>(p.scratch);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  for (int t = first_tile; t < last_tile; ++t) {
    const int column = t * kTile;
    for (int r = 0; r < p.m; ++r)
      for (int v = 0; v < kTile; v += kWidth) store(sums + r * kTile + v, p.bias ? load(p.bias + column + v) : Vec{});
    const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(t) * blocks * kStored;
    // Prefetches a little ahead if the tile is read only once, otherwise the next tile.
    const char* next = b + (pairs == 1 ? std::size_t(2 * kAhead) : std::size_t(blocks) * kStored);
    for (int begin = 0; begin < blocks; begin += kStreamBlocks, b += std::size_t(kStreamBlocks) * kStored) {
      const int count = blocks - begin < kStreamBlocks ? blocks - begin : kStreamBlocks;
      if constexpr (kUnpacks) unpack_to_bfloat16<kP>(b, count, unpacked);
      multiply_tile_bfloat16(p, groups, begin, count, kUnpacks ? unpacked : b, sums, next, ahead);
      next += std::size_t(count) * kStored;
    }
    for (int r = 0; r < p.m; ++r)
      for (int v = 0; v < kTile; v += kWidth) finish(p, r, column + v, load(sums + r * kTile + v));
  }
}

// Takes as many rows at a time as fit into the second-level cache beside the weights.
template <Precision kP>
void bfloat16_product(const Product& p, int first_tile, int last_tile) {
  constexpr int kInputBytes = 1 << 20;
  static constexpr BFloat16Shapes shapes;  // see matrix_unit_product
  _tile_loadconfig(&shapes);
  const int blocks = block_count(p.k), group_bytes = blocks * int(sizeof(BFloat16Block));
  const int rows = group_bytes > kInputBytes / 2 ? 2 * kRowGroup : kInputBytes / group_bytes / 2 * 2 * kRowGroup;
  for (int first = 0; first < p.m; first += rows) {
    Product part = p;
    part.m = p.m - first < rows ? p.m - first : rows;
    part.prepared += std::size_t(first / kRowGroup) * group_bytes;
    part.c += first * p.ldc;
    multiply_rows_bfloat16<kP>(part, first_tile, last_tile);
  }
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
