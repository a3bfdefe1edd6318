// Products of q8_0 and q4_0 weights with inputs that are quantised block by block; included by kernels.inl only.
//
// The sums inside a block are exact integers, so it does not matter which instructions add them; the float sums over
// blocks are a chain of fused multiply-adds in the order of k, the same on every path.
#pragma once

#include "kernels.h"
#include "products.inl"
#include "vector.inl"

namespace gpt2lab {
namespace {

#if defined(__AVX512VNNI__)
constexpr int kQuantizedRows = 6;
#elif defined(__AVX512F__)
constexpr int kQuantizedRows = 4;
#elif defined(__AVX2__)
constexpr int kQuantizedRows = 2;
#elif defined(__ARM_NEON) && defined(__aarch64__)
constexpr int kQuantizedRows = 3;
#else
constexpr int kQuantizedRows = 1;
#endif

// Whether to make the weights unsigned, as some instructions require; ActivationBlock::offset corrects the sums.
template <Precision kP>
constexpr bool kUnsigned =
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    true;
#elif defined(__AVX2__)
    kP == Precision::q4_0;  // an intermediate sum's 16 bits hold two products of 4 and 8 bits, but not of 8 and 8
#else
    false;
#endif

// The layout of a block of a tile: two halves of 16 outputs, each [kBlock / 4][16][4], then the scales. In q4_0 the low
// halves of the bytes hold the first 16 inputs, the high halves the others.
template <Precision kP>
struct WeightBlock {
  static constexpr int kHalfBytes = kP == Precision::q8_0 ? 512 : 256;
  static constexpr int kScalesAt = 2 * kHalfBytes;
  static constexpr int kBytes = kScalesAt + kTile * int(sizeof(Half));
};

constexpr int kHalfTile = kTile / 2;

typedef signed char ByteVec __attribute__((vector_size(kWidth * 4)));
typedef int Int4 __attribute__((aligned(4), may_alias));

// Loads inputs 4 * step … + 4 of a vector of outputs; `p` points at the first of these outputs in the first step.
template <Precision kP>
inline IntVec weights(const char* p, int step) {
  constexpr int kStepBytes = kHalfTile * 4;
  if constexpr (kP == Precision::q8_0) {
    const IntVec w = load_ints(p + step * kStepBytes);
    return kUnsigned<kP> ? w ^ splat_int(int(0x80808080)) : w;
  } else {
    const IntVec w = load_ints(p + step % 4 * kStepBytes);
    const IntVec q = (step < 4 ? w : w >> 4) & splat_int(0x0f0f0f0f);
    return kUnsigned<kP> ? q : (IntVec)((ByteVec)q - (ByteVec)splat_int(0x08080808));
  }
}

// Loads the same weights, always signed.
template <Precision kP>
inline IntVec signed_weights(const char* p, int step) {
  constexpr int kStepBytes = kHalfTile * 4;
  if constexpr (kP == Precision::q8_0) return load_ints(p + step * kStepBytes);
  const IntVec w = load_ints(p + step % 4 * kStepBytes);
  return (IntVec)((ByteVec)((step < 4 ? w : w >> 4) & splat_int(0x0f0f0f0f)) - (ByteVec)splat_int(0x08080808));
}

// Adds w[4 * i … + 4] · x to acc[i], where every lane of x holds the same four signed bytes.
template <Precision kP>
inline IntVec dot(IntVec acc, IntVec w, IntVec x) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
#elif defined(__AVX512F__)
  __m512i products;
  if constexpr (kUnsigned<kP>) {
    products = _mm512_maddubs_epi16((__m512i)w, (__m512i)x);
  } else {  // move the sign of x to w
    const __mmask64 negative = _mm512_movepi8_mask((__m512i)x);
    const __m512i signed_w = _mm512_mask_sub_epi8((__m512i)w, negative, _mm512_setzero_si512(), (__m512i)w);
    products = _mm512_maddubs_epi16(_mm512_abs_epi8((__m512i)x), signed_w);
  }
  return acc + (IntVec)_mm512_madd_epi16(products, _mm512_set1_epi16(1));
#elif defined(__AVXVNNI__)
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, (__m256i)x);
#elif defined(__AVX2__)
  __m256i products;
  if constexpr (kUnsigned<kP>) products = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
  else products = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)x), _mm256_sign_epi8((__m256i)w, (__m256i)x));
  return acc + (IntVec)_mm256_madd_epi16(products, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
  return (IntVec)vdotq_s32((int32x4_t)acc, (int8x16_t)w, (int8x16_t)x);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  const int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8((int8x16_t)x));
  const int16x8_t high = vmull_high_s8((int8x16_t)w, (int8x16_t)x);
  return (IntVec)vpadalq_s16((int32x4_t)acc, vpaddq_s16(low, high));
#elif defined(__SSE2__)
  const __m128i even_w = _mm_srai_epi16(_mm_slli_epi16((__m128i)w, 8), 8), odd_w = _mm_srai_epi16((__m128i)w, 8);
  const __m128i even_x = _mm_srai_epi16(_mm_slli_epi16((__m128i)x, 8), 8), odd_x = _mm_srai_epi16((__m128i)x, 8);
  return acc + (IntVec)_mm_madd_epi16(even_w, even_x) + (IntVec)_mm_madd_epi16(odd_w, odd_x);
#else
  for (int shift = 24; shift >= 0; shift -= 8) acc += ((w << shift) >> 24) * ((x << shift) >> 24);
  return acc;
#endif
}

// Quantises row `row` of a matrix of inputs; out is the first block of its group.
void quantize(const float* x, int k, int zero_point, int row, ActivationBlock* out) {
  constexpr float kTiny = 1e-30f;        // blocks smaller than this are zero: the inverse of their scale would overflow
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number, ties to even
  constexpr int kParts = kBlock / kWidth;
  const int slot = row % kRowGroup;
  for (int begin = 0; begin < k; begin += kBlock, ++out) {
    float padded[kBlock] = {};
    const float* block = x + begin;
    if (begin + kBlock > k) {
      __builtin_memcpy(padded, block, (k - begin) * sizeof(float));
      block = padded;
    }
    // Compare magnitudes by their bits, so that NaN and infinity win and reach the scale.
    IntVec top = {};
    for (int i = 0; i < kParts; ++i) {
      const IntVec magnitude = (IntVec)load(block + i * kWidth) & splat_int(0x7fffffff);
      top = magnitude > top ? magnitude : top;
    }
    const float largest = __builtin_bit_cast(float, largest_lane(top));
    const bool zero = !(largest >= kTiny && largest < __builtin_inff());  // only the scale reports NaN and infinity
    const Vec inverse = splat(zero ? 0.0f : 127.0f / largest);
    IntVec total = {};
    for (int i = 0; i < kParts; ++i) {
      const Vec rounded = load(block + i * kWidth) * inverse + kRound;
      const IntVec q = zero ? IntVec{} : (IntVec)rounded - (IntVec)splat(kRound);
      total += q;
      store_bytes(out->q[slot] + i * kWidth, q);
    }
    out->scale[slot] = largest < kTiny ? 0.0f : largest * (1.0f / 127.0f);
    out->offset[slot] = -zero_point * sum_lanes(total);
  }
}

// Computes kM rows of one group by kV vectors of columns, over all blocks of k.
template <Precision kP, int kM, int kV>
void quantized_block(const Product& p, int row, int column, Prefetch prefetch) {
  using Block = WeightBlock<kP>;
  const int blocks = block_count(p.k), slot = row % kRowGroup, in_tile = column % kTile;
  const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(row / kRowGroup) * blocks;
  const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(column / kTile) * blocks * Block::kBytes;
  Vec acc[kM][kV];
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) acc[r][v] = p.bias ? load(p.bias + column + v * kWidth) : Vec{};
  for (int i = 0; i < blocks; ++i, ++a, b += Block::kBytes) {
    IntVec sums[kM][kV];
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) sums[r][v] = splat_int(kUnsigned<kP> ? a->offset[slot + r] : 0);
    for (int at = 0; at < prefetch.step; at += kLine) __builtin_prefetch(prefetch.next + at);
    prefetch.next += prefetch.step;
#pragma GCC unroll 8
    for (int step = 0; step < kBlock / 4; ++step) {
      IntVec w[kV];
      for (int v = 0; v < kV; ++v) {
        const int output = in_tile + v * kWidth;
        w[v] = weights<kP>(b + output / kHalfTile * Block::kHalfBytes + output % kHalfTile * 4, step);
      }
      for (int r = 0; r < kM; ++r) {
        const IntVec x = splat_int(reinterpret_cast<const Int4*>(a->q[slot + r])[step]);
        for (int v = 0; v < kV; ++v) sums[r][v] = dot<kP>(sums[r][v], w[v], x);
      }
    }
    const auto* scales = reinterpret_cast<const Half*>(b + Block::kScalesAt) + in_tile;
    for (int v = 0; v < kV; ++v) {
      const Vec scale = load(scales + v * kWidth);
      for (int r = 0; r < kM; ++r)
        acc[r][v] = fma(__builtin_convertvector(sums[r][v], Vec), scale * splat(a->scale[slot + r]), acc[r][v]);
    }
  }
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) finish(p, row + r, column + v * kWidth, acc[r][v]);
}

}  // namespace
}  // namespace gpt2lab

#if defined(__AMX_INT8__)
#include "matrix_unit.inl"
#endif

namespace gpt2lab {
namespace {

template <Precision kP>
void quantized_product(const Product& p, int first_tile, int last_tile) {
  const std::size_t tile_bytes = std::size_t(block_count(p.k)) * WeightBlock<kP>::kBytes;
  const auto* bytes = reinterpret_cast<const char*>(p.b);
  if (p.m == 1) {
    for (int t = first_tile; t < last_tile; ++t)
      quantized_block<kP, 1, kTile / kWidth>(p, 0, t * kTile,
                                             {bytes + t * tile_bytes + kAhead, WeightBlock<kP>::kBytes});
    return;
  }
#if defined(__AMX_INT8__)
  if (p.m >= kMatrixUnitRows<kP>) return matrix_unit_product<kP>(p, first_tile, last_tile);
#endif
  for (int t = first_tile; t < last_tile; ++t)
    for (int first = 0; first < p.m; first += kRowGroup) {
      const int rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
      const int groups = (rows + kQuantizedRows - 1) / kQuantizedRows;
      for (int column = t * kTile; column < (t + 1) * kTile; column += kPass)
        for (int g = 0; g < groups; ++g) {
          const Group group(rows, g, groups);
          // The first pass over a tile streams it; the others find it in the cache and prefetch the next.
          Prefetch prefetch{bytes + t * tile_bytes + kAhead, WeightBlock<kP>::kBytes};
          if (first > 0 || g > 0 || column % kTile > 0) prefetch.next += tile_bytes;
          with_count<kQuantizedRows>(group.count, [&]<int kM>() {
            quantized_block<kP, kM, kVectors>(p, first + group.begin, column, prefetch);
          });
        }
    }
}

}  // namespace
}  // namespace gpt2lab
