// The sampler's passes over a row of one number per token of the vocabulary; included by kernels.inl only.
//
// Every function passes over the row once. It computes the same for float32, the original logits, and for float64, the
// logits with biases and penalties. The order of every sum is fixed.
#pragma once

#include "vector.inl"

namespace gpt2lab {
namespace {

constexpr int kDoubles = kWidth / 2;
typedef double DoubleVec __attribute__((vector_size(kWidth * 4)));
typedef long long LongVec __attribute__((vector_size(kWidth * 4)));
typedef double UnalignedDoubleVec __attribute__((vector_size(kWidth * 4), aligned(8), may_alias));
typedef float HalfVec __attribute__((vector_size(kWidth * 2), aligned(4), may_alias));

inline DoubleVec load(const double* p) { return *reinterpret_cast<const UnalignedDoubleVec*>(p); }
inline void store(double* p, DoubleVec v) { *reinterpret_cast<UnalignedDoubleVec*>(p) = v; }
inline DoubleVec load_doubles(const double* p) { return load(p); }
inline DoubleVec load_doubles(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const HalfVec*>(p), DoubleVec);
}

inline DoubleVec splat(double x) {
#if defined(__AVX512F__)
  return (DoubleVec)_mm512_set1_pd(x);
#elif defined(__AVX2__)
  return (DoubleVec)_mm256_set1_pd(x);
#else
  return DoubleVec{x, x};
#endif
}

inline DoubleVec greater(DoubleVec a, DoubleVec b) {
#if defined(__AVX512F__)
  return (DoubleVec)_mm512_maskz_max_pd(0xFF, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  return (DoubleVec)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

// Writes `first` + lane for every lane that is at least `threshold`, and returns their number; may write up to kWidth
// more ids.
inline int append_at_least(Vec x, Vec threshold, int first, std::int32_t* ids) {
#if defined(__AVX512F__)
  const __mmask16 mask = _mm512_cmp_ps_mask((__m512)x, (__m512)threshold, _CMP_GE_OQ);
  if (!mask) return 0;
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(lanes, _mm512_set1_epi32(first))));
  return __builtin_popcount(mask);
#elif defined(__AVX2__)
  int mask = _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)threshold, _CMP_GE_OQ)), count = 0;
  for (; mask; mask &= mask - 1) ids[count++] = first + __builtin_ctz(mask);
  return count;
#else
  int count = 0;
  for (int lane = 0; lane < kWidth; ++lane) {
    ids[count] = first + lane;
    count += x[lane] >= threshold[lane];
  }
  return count;
#endif
}
inline int append_at_least(DoubleVec x, DoubleVec threshold, int first, std::int32_t* ids) {
#if defined(__AVX512F__)
  const __mmask8 mask = _mm512_cmp_pd_mask((__m512d)x, (__m512d)threshold, _CMP_GE_OQ);
  if (!mask) return 0;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  _mm256_storeu_si256((__m256i*)ids,
                      _mm256_maskz_compress_epi32(mask, _mm256_add_epi32(lanes, _mm256_set1_epi32(first))));
  return __builtin_popcount(mask);
#elif defined(__AVX2__)
  int mask = _mm256_movemask_pd(_mm256_cmp_pd((__m256d)x, (__m256d)threshold, _CMP_GE_OQ)), count = 0;
  for (; mask; mask &= mask - 1) ids[count++] = first + __builtin_ctz(mask);
  return count;
#else
  int count = 0;
  for (int lane = 0; lane < kDoubles; ++lane) {
    ids[count] = first + lane;
    count += x[lane] >= threshold[lane];
  }
  return count;
#endif
}

// Computes e^x for x ≤ 0 to about one unit in the last place; 0 below -708. e^x = 2^n · e^r with n = round(x / ln 2)
// and |r| ≤ ln 2 / 2; e^r = 1 + r + r² q(r), where q is a Chebyshev interpolation, here of degree 9. Adding `magic`
// rounds to a whole number and leaves n + 1023, the biased exponent of 2^n, in the lowest bits. Products and sums are
// rounded one by one, as in the exp of float32.
inline DoubleVec exp(DoubleVec x) {
  const DoubleVec magic = splat(6755399441055744.0 + 1023);  // 1.5 · 2^52 + the bias
  const LongVec tiny = x < splat(-708.0);
  const DoubleVec clamped = greater(x, splat(-708.0));
  const DoubleVec shifted = clamped * splat(1.4426950408889634) + magic;
  const DoubleVec n = shifted - magic;
  const DoubleVec r = (clamped - n * splat(0.693147180369123816490)) - n * splat(1.90821492927058770002e-10);
  constexpr double kPolynomial[] = {2.7620088445409746e-07, 2.7557268459997064e-06, 2.4801521295954376e-05,
                                    0.00019841269863053618, 0.0013888888917213717,  0.008333333333330062,
                                    0.04166666666662413,    0.16666666666666669,    0.50000000000000000,
                                    1.0000000000000000,     1.0000000000000000};
  DoubleVec p = splat(2.510038549551032e-08);
  for (const double c : kPolynomial) p = p * r + splat(c);
  return (DoubleVec)(~tiny & (LongVec)(p * (DoubleVec)((LongVec)shifted << 52)));
}

// The vectors of floats or doubles that hold kGroupBins numbers.
template <typename Real>
struct Bins {
  using V = decltype(load((const Real*)nullptr));
  static constexpr int kLanes = sizeof(V) / sizeof(Real), kParts = kGroupBins / kLanes;
};

template <typename Real>
Real largest(const Real* x, int n, Real* bins) {
  using B = Bins<Real>;
  const Real lowest = -(Real)__builtin_inff();
  typename B::V all[B::kParts];
  for (auto& part : all) part = splat(lowest);
  for (int begin = 0; begin < n; begin += kGroup, bins += kGroupBins) {
    typename B::V top[B::kParts];
    for (auto& part : top) part = splat(lowest);
    const int end = n - begin < kGroup ? n : begin + kGroup;
    int i = begin;
    for (; i + kGroupBins <= end; i += kGroupBins)
      for (int part = 0; part < B::kParts; ++part) top[part] = greater(load(x + i + part * B::kLanes), top[part]);
    for (int part = 0; part < B::kParts; ++part) store(bins + part * B::kLanes, top[part]);
    for (int bin = 0; i < end; ++i, ++bin) bins[bin] = x[i] > bins[bin] ? x[i] : bins[bin];
    for (int part = 0; part < B::kParts; ++part) all[part] = greater(load(bins + part * B::kLanes), all[part]);
  }
  Real result = lowest;
  for (const auto& part : all)
    for (int lane = 0; lane < B::kLanes; ++lane) result = part[lane] > result ? part[lane] : result;
  return result;
}

template <typename Real>
int at_least(const Real* x, int n, const Real* bins, Real threshold, std::int32_t* ids) {
  using B = Bins<Real>;
  const auto thresholds = splat(threshold);
  int count = 0;
  for (int begin = 0; begin < n; begin += kGroup, bins += kGroupBins) {
    bool any = false;
    for (int bin = 0; bin < kGroupBins; ++bin) any |= bins[bin] >= threshold;
    if (!any) continue;
    const int end = n - begin < kGroup ? n : begin + kGroup;
    int i = begin;
    for (; i + B::kLanes <= end; i += B::kLanes) count += append_at_least(load(x + i), thresholds, i, ids + count);
    for (; i < end; ++i)
      if (x[i] >= threshold) ids[count++] = i;
  }
  return count;
}

// Adds term(x[0]) … term(x[n - 1]) in float64, where `term` maps the vectors that begin at x + i; reads `n` numbers.
template <typename Real, typename F>
inline double sum_doubles(const Real* x, int n, F&& term) {
  Lanes<DoubleVec> total;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int p = 0; p < total.kParts; ++p) total.part[p] += term(load_doubles(x + i + p * kDoubles));
  if (i < n) {
    Real last[kLanes];
    for (int j = 0; j < kLanes; ++j) last[j] = i + j < n ? x[i + j] : -(Real)__builtin_inff();
    for (int p = 0; p < total.kParts; ++p) total.part[p] += term(load_doubles(last + p * kDoubles));
  }
  return total.sum();
}

template <typename Real>
double sum_strides(const Real* x, int n, double largest, double scale, double* sums) {
  const DoubleVec shift = splat(largest), factor = splat(scale);
  double total = 0;
  for (int i = 0; i < n; i += kStride)
    total += (*sums++ = sum_doubles(x + i, n - i < kStride ? n - i : kStride,
                                    [&](DoubleVec v) { return exp((v - shift) * factor); }));
  return total;
}

double sum_exp(const float* x, int n, float largest) {
  constexpr int kFew = 16;  // additions in float32, then one in float64
  const Vec shift = splat(largest);
  Lanes<DoubleVec> total;
  const auto add = [&](const float* from, int rounds) {
    Lanes<Vec> few;
    for (int round = 0; round < rounds; ++round, from += kLanes)
      for (int p = 0; p < few.kParts; ++p) few.part[p] += exp(load(from + p * kWidth) - shift);
    float lanes[kLanes];
    for (int p = 0; p < few.kParts; ++p) store(lanes + p * kWidth, few.part[p]);
    for (int p = 0; p < total.kParts; ++p) total.part[p] += load_doubles(lanes + p * kDoubles);
  };
  int i = 0;
  for (; i + kFew * kLanes <= n; i += kFew * kLanes) add(x + i, kFew);
  for (; i + kLanes <= n; i += kLanes) add(x + i, 1);
  if (i < n) {
    float last[kLanes];
    for (int j = 0; j < kLanes; ++j) last[j] = i + j < n ? x[i + j] : -__builtin_inff();
    add(last, 1);
  }
  return total.sum();
}

// Computes out[i] = e^x[i] for x ≤ 0; returns their sum. `out` may be x.
double exp_all(const double* x, int n, double* out) {
  Lanes<DoubleVec> total;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int p = 0; p < total.kParts; ++p) {
      const DoubleVec e = exp(load(x + i + p * kDoubles));
      store(out + i + p * kDoubles, e);
      total.part[p] += e;
    }
  if (i < n) {
    double last[kLanes];
    for (int j = 0; j < kLanes; ++j) last[j] = i + j < n ? x[i + j] : -__builtin_inf();
    for (int p = 0; p < total.kParts; ++p) {
      const DoubleVec e = exp(load(last + p * kDoubles));
      store(last + p * kDoubles, e);
      total.part[p] += e;
    }
    for (int j = 0; i + j < n; ++j) out[i + j] = last[j];
  }
  return total.sum();
}

}  // namespace
}  // namespace gpt2lab
