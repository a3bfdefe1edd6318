// A vector of floats as wide as the instruction set that this file is compiled for; included by kernels.inl only.
//
// Compilers' vector extensions give + - * / and comparisons on every CPU. The fused multiply-add is explicit, so that
// this file and not the optimiser decides where rounding happens.
#pragma once

#include "precision.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace gpt2lab {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kVectors = 2, kRows = 12;  // 24 of 32 registers accumulate
#elif defined(__AVX2__)
constexpr int kWidth = 8, kVectors = 2, kRows = 6;  // 12 of 16
#elif defined(__ARM_NEON) && defined(__aarch64__)
constexpr int kWidth = 4, kVectors = 4, kRows = 6;  // 24 of 32
#else
constexpr int kWidth = 4, kVectors = 4, kRows = 2;  // 8 of 16
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int IntVec __attribute__((vector_size(kWidth * 4)));
typedef float UnalignedVec __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));

typedef unsigned short ShortVec __attribute__((vector_size(kWidth * 2)));
typedef unsigned short UnalignedShortVec __attribute__((vector_size(kWidth * 2), aligned(2), may_alias));
typedef unsigned UnsignedVec __attribute__((vector_size(kWidth * 4)));

inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }

inline UnsignedVec widen(const void* p) {
  return __builtin_convertvector(ShortVec(*static_cast<const UnalignedShortVec*>(p)), UnsignedVec);
}

// Broadcasts x, straight from memory where possible: adding x to a zero vector would cost a shuffle each time.
inline Vec splat(float x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Vec)_mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}

typedef IntVec UnalignedIntVec __attribute__((aligned(4), may_alias));

inline IntVec load_ints(const void* p) { return *static_cast<const UnalignedIntVec*>(p); }

inline IntVec splat_int(int x) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_set1_epi32(x);
#elif defined(__AVX2__)
  return (IntVec)_mm256_set1_epi32(x);
#else
  return IntVec{x, x, x, x};
#endif
}

inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// Computes `mask ? a : b` per lane; mask lanes are 0 or -1.
inline Vec select(IntVec mask, Vec a, Vec b) { return (Vec)((mask & (IntVec)a) | (~mask & (IntVec)b)); }
inline Vec vmax(Vec a, Vec b) { return select(a > b, a, b); }
inline Vec vmin(Vec a, Vec b) { return select(a < b, a, b); }

inline Vec load(const Half* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
#else
  // Move sign, exponent and fraction into place; 2^112 corrects for the smaller bias, for subnormal numbers too.
  const UnsignedVec bits = widen(p), magnitude = bits & 0x7fff;
  const Vec finite = (Vec)(magnitude << 13) * 0x1p112f;
  const IntVec special = (IntVec)magnitude >= 0x7c00;  // infinite, or NaN
  return (Vec)((IntVec)((bits & 0x8000) << 16) | (special & (IntVec)(magnitude << 13 | 0x7f800000)) |
               (~special & (IntVec)finite));
#endif
}

// Rounds to nearest; numbers that are too large become the largest finite number, NaN stays NaN.
inline void store(Half* p, Vec v) {
  constexpr float kLargest = 65504.0f;
  v = select(v > kLargest, splat(kLargest), select(v < -kLargest, splat(-kLargest), v));
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, (__m512)v, 0));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, 0));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
#else
  for (int i = 0; i < kWidth; ++i) p[i] = gpt2lab::to_half(v[i]);
#endif
}

// Adds the lanes by folding halves together, in an order of additions that is fixed for a width.
inline float sum(Vec v) {
  float lanes[kWidth];
  store(lanes, v);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

inline float max(Vec v) {
  float lanes[kWidth];
  store(lanes, v);
  float m = lanes[0];
  for (int i = 1; i < kWidth; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

inline int largest_lane(IntVec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)v);
#else
  int m = v[0];
  for (int i = 1; i < kWidth; ++i) m = v[i] > m ? v[i] : m;
  return m;
#endif
}

inline int sum_lanes(IntVec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  int total = 0;
  for (int i = 0; i < kWidth; ++i) total += v[i];
  return total;
#endif
}

// Stores the lowest byte of each lane.
inline void store_bytes(std::int8_t* p, IntVec v) {
  typedef signed char Bytes __attribute__((vector_size(kWidth)));
  const Bytes bytes = __builtin_convertvector(v, Bytes);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

// Computes e^x to about one unit in the last place; x below -87.3 gives 0, above 88.3 the largest power, NaN gives NaN.
// e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2; a Taylor polynomial of degree 7 gives e^r.
inline Vec exp(Vec x) {
  const Vec clamped = vmin(vmax(x, splat(-87.33f)), splat(88.37f));
  const Vec shifted = fma(clamped, splat(1.44269504089f), splat(12582912.0f));  // 1.5 · 2^23: rounds to nearest
  const Vec n = shifted - 12582912.0f;
  Vec r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9841270e-4f);
  p = fma(p, r, splat(1.3888889e-3f));
  p = fma(p, r, splat(8.3333333e-3f));
  p = fma(p, r, splat(4.1666667e-2f));
  p = fma(p, r, splat(1.6666667e-1f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const IntVec exponent = ((IntVec)shifted - (IntVec)splat(12582912.0f) + 127) << 23;
  const Vec result = p * (Vec)exponent;
  return select(x != x, x, select(x < -87.33f, Vec{}, result));  // NaN stays NaN
}

// Calls f<n>() for an n in 1 … kMax that is known only at run time.
template <int kMax, typename F>
inline void with_count(int n, F&& f) {
  if constexpr (kMax > 1) {
    if (n < kMax) return with_count<kMax - 1>(n, f);
  }
  f.template operator()<kMax>();
}

}  // namespace
}  // namespace gpt2lab
