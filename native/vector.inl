// A vector of floats as wide as the instruction set that this file is compiled for; included by kernels.inl only.
//
// Compilers' vector extensions give + - * / and comparisons on every CPU. The fused multiply-add is explicit, so that
// this file and not the optimiser decides where rounding happens.
#pragma once

#include "kernels.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
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
typedef short Shorts __attribute__((vector_size(kWidth * 4)));

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

inline void store_ints(void* p, IntVec v) { *static_cast<UnalignedIntVec*>(p) = v; }

inline IntVec splat_int(int x) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_set1_epi32(x);
#elif defined(__AVX2__)
  return (IntVec)_mm256_set1_epi32(x);
#else
  return IntVec{x, x, x, x};
#endif
}

#if defined(__AVX2__) || (defined(__ARM_NEON) && defined(__aarch64__))
constexpr bool kEmulatesFma = false;
#else
constexpr bool kEmulatesFma = true;

// Computes a · b + c with one rounding on a CPU without the instruction, at about an eighth of its speed. The product
// is exact in float64. The sum is rounded to odd: if it is inexact, its last bit is set, so that rounding it again, to
// float32, gives what one rounding gives. A plain float64 sum would occasionally round
// as if at a tie where there is none.
inline Vec emulated_fma(Vec a, Vec b, Vec c) {
  typedef double Wide __attribute__((vector_size(kWidth * 8)));
  typedef long long Bits __attribute__((vector_size(kWidth * 8)));
  const Wide product = __builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide);
  const Wide term = __builtin_convertvector(c, Wide), sum = product + term;
  const Wide part = sum - product, error = (product - (sum - part)) + (term - part);  // sum + error is exact
  const Bits bits = (Bits)sum, inexact = (Bits)((error < 0.0) | (error > 0.0)), even = (bits & 1) - 1;
  const Bits away = ((Bits)error ^ bits) >> 63;                  // -1: the exact sum is nearer to zero than `sum`
  const Bits odd = bits + (inexact & even & (away + away + 1));  // one step towards the exact sum
  return __builtin_convertvector((Wide)odd, Vec);
}
#endif

inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return emulated_fma(a, b, c);
#endif
}

// Computes a · b + c with one rounding, or with two.
template <bool kFused>
inline Vec multiply_add(Vec a, Vec b, Vec c) {
  if constexpr (kFused) return fma(a, b, c);
  return a * b + c;
}

// Computes `mask ? a : b` per lane; mask lanes are 0 or -1.
inline Vec select(IntVec mask, Vec a, Vec b) { return (Vec)((mask & (IntVec)a) | (~mask & (IntVec)b)); }

// Returns the first `count` lanes of a, and b in the others.
inline Vec first_lanes(int count, Vec a, Vec b) {
  IntVec number;
  for (int i = 0; i < kWidth; ++i) number[i] = i;
  return select(number < splat_int(count), a, b);
}

// Computes `a > b ? a : b` per lane: b if either is NaN. (GCC 12 warns about its own _mm512_max_ps, but not about the
// masked form.)
inline Vec greater(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps((__m128)a, (__m128)b);
#else
  return select(a > b, a, b);
#endif
}

// Computes `a < b ? a : b` per lane: b if either is NaN.
inline Vec lesser(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_min_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vec)_mm_min_ps((__m128)a, (__m128)b);
#else
  return select(a < b, a, b);
#endif
}

// Returns y, with zeros in the lanes where x < limit.
inline Vec zero_below(Vec x, Vec limit, Vec y) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)limit, _CMP_NLT_UQ), (__m512)y);
#else
  return (Vec)(~(IntVec)(x < limit) & (IntVec)y);
#endif
}

inline Vec load(const Half* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
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

inline Vec load(const BFloat16* p) { return (Vec)(widen(p) << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(BFloat16* p, Vec v) {
  const UnsignedVec bits = (UnsignedVec)v, even = bits + 0x7fff + (bits >> 16 & 1);
  const IntVec nan = v != v;
  const UnsignedVec upper = (((UnsignedVec)nan & (bits | 0x400000)) | (~(UnsignedVec)nan & even)) >> 16;
  *reinterpret_cast<UnalignedShortVec*>(p) = __builtin_convertvector(upper, ShortVec);
}

// The lanes of a sum. Number i of a row goes to lane i mod kLanes, whatever the width of a vector, and the lanes are
// added by folding halves together, so that a sum has the same bits on every CPU.
constexpr int kLanes = 16;

template <typename V>
struct Lanes {
  using Real = __typeof__(V{}[0] + V{}[0]);
  static constexpr int kEach = int(sizeof(V) / sizeof(Real)), kParts = kLanes / kEach;
  V part[kParts] = {};

  Real sum() const {
    Real lanes[kLanes];
    __builtin_memcpy(lanes, part, sizeof lanes);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
  }
};

// Adds term(x[0]) … term(x[n - 1]), where `term` maps vectors; term(filler) is zero.
template <typename F>
inline float sum_of(const float* x, int n, float filler, F&& term) {
  Lanes<Vec> total;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int p = 0; p < total.kParts; ++p) total.part[p] += term(load(x + i + p * kWidth));
  if (i < n) {
    float last[kLanes];
    for (int j = 0; j < kLanes; ++j) last[j] = i + j < n ? x[i + j] : filler;
    for (int p = 0; p < total.kParts; ++p) total.part[p] += term(load(last + p * kWidth));
  }
  return total.sum();
}

inline float max(Vec v) {
#if defined(__AVX512F__)
  v = greater(v, (Vec)_mm512_maskz_shuffle_f32x4(0xffff, (__m512)v, (__m512)v, 0x4e));  // swaps halves,
  v = greater(v, (Vec)_mm512_maskz_shuffle_f32x4(0xffff, (__m512)v, (__m512)v, 0xb1));  // quarters,
  v = greater(v, (Vec)_mm512_maskz_permute_ps(0xffff, (__m512)v, 0x4e));                // and so on
  return v[0] > v[1] ? v[0] : v[1];
#else
  float lanes[kWidth];
  store(lanes, v);
  float m = lanes[0];
  for (int i = 1; i < kWidth; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
#endif
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

// Stores the lower half of each lane.
inline void store_shorts(std::int16_t* p, IntVec v) {
  typedef short Halves __attribute__((vector_size(kWidth * 2)));
  const Halves halves = __builtin_convertvector(v, Halves);
  __builtin_memcpy(p, &halves, sizeof halves);
}

// Loads signed bytes. (gcc 12 converts vectors of bytes one by one.)
inline IntVec load_bytes(const void* p) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(static_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  return (IntVec)_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
#else
  const auto* bytes = static_cast<const signed char*>(p);
  return IntVec{bytes[0], bytes[1], bytes[2], bytes[3]};
#endif
}

// Swaps the middle two of every four lanes.
inline IntVec middle_swapped(IntVec v) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_maskz_shuffle_epi32(0xffff, (__m512i)v, _MM_PERM_ENUM(0xd8));
#elif defined(__AVX2__)
  return (IntVec)_mm256_shuffle_epi32((__m256i)v, 0xd8);
#elif defined(__SSE2__)
  return (IntVec)_mm_shuffle_epi32((__m128i)v, 0xd8);
#else
  return IntVec{v[0], v[2], v[1], v[3]};
#endif
}

constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number, ties to even

// Computes 2^(n + f) with n = shifted - kRound from -126 to 127 and |f| ≤ 1/2; NaN in f gives NaN. A polynomial of
// degree 5 gives 2^f: it is 1 at 0, and its relative error is at most 1e-7 before rounding. Unless kFused, no CPU needs
// a fused multiply-add.
template <bool kFused>
inline Vec power_of_parts(Vec shifted, Vec f) {
  constexpr float kPolynomial[] = {0.00967151299f, 0.0555073395f, 0.240222424f, 0.693147004f, 1.0f};
  Vec p = splat(0.00132647145f);
  for (const float c : kPolynomial) p = multiply_add<kFused>(p, f, splat(c));
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)(shifted - kRound));
#else
  return p * (Vec)(((IntVec)shifted + 127) << 23);  // the lower bits of kRound are zero, its upper ones are shifted out
#endif
}

// Computes 2^x for x ≤ 0 to about two units in the last place; powers below 2^-126 are 0.
template <bool kFused>
inline Vec power_of_negative(Vec x) {
  const Vec shifted = x + splat(kRound);
  return zero_below(x, splat(-126.0f), power_of_parts<kFused>(shifted, x - (shifted - kRound)));
}

constexpr float kLowestExponent = -87.33f, kHighestExponent = 88.37f;  // of e, for a normal number

// Computes e^x to about two units in the last place, for x limited to the range of exponents. The remainder
// r = x - n · ln 2 is exact but for its last bits, because n times the upper part of ln 2 is exact, fused or not.
inline Vec exp_in_range(Vec x) {
  const Vec within = lesser(splat(kHighestExponent), greater(splat(kLowestExponent), x));
  const Vec shifted = within * splat(kLog2E) + splat(kRound), n = shifted - kRound;
  const Vec r = multiply_add<!kEmulatesFma>(n, splat(-0.693359375f), within) + n * splat(2.12194440e-4f);
  return power_of_parts<false>(shifted, r * splat(kLog2E));
}

// Does the same, but x below the range gives 0.
inline Vec exp(Vec x) { return zero_below(x, splat(kLowestExponent), exp_in_range(x)); }

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
