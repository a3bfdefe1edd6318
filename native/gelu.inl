// GELU in its tanh form and its gradient; included by kernels.inl only.
#pragma once

#include "vector.inl"

namespace gpt2lab {
namespace {

// Computes -2u, where u is the inner function of GELU in its tanh form, as in the original model.py: 0.79788… · (x +
// 0.044715 · x³). The factor of -2 changes no rounding of normal numbers.
inline Vec gelu_exponent(Vec x) { return (x + x * x * x * 0.044715f) * (0.7978845608028654f * -2.0f); }

// Computes GELU with 0.5 · (1 + tanh u) written as 1 / (1 + e^-2u). Powers below e^x's range would not change the sum.
inline Vec gelu(Vec x) { return x / (exp_in_range(gelu_exponent(x)) + 1.0f); }

// Computes d gelu / d x = s + x · s · (1 - s) · 2u', where s = 1 / (1 + e^-2u).
inline Vec gelu_slope(Vec x) {
  const Vec e = exp(gelu_exponent(x)), s = splat(1.0f) / (e + 1.0f);
  const Vec inner_slope = fma(x * x, splat(0.1070322243f), splat(0.7978845608f));
  return fma(x * s * (e * s), inner_slope * 2.0f, s);
}

// Computes out[i] = f(a[i], b[i]) vector by vector; zeros fill the last vector.
template <typename F>
inline void map(const float* a, const float* b, int n, float* out, F&& f) {
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, f(load(a + i), load(b + i)));
  if (i < n) {
    float last[2][kWidth] = {};
    for (int j = 0; i + j < n; ++j) last[0][j] = a[i + j], last[1][j] = b[i + j];
    store(last[0], f(load(last[0]), load(last[1])));
    for (int j = 0; i + j < n; ++j) out[i + j] = last[0][j];
  }
}

inline void gelu_gradient(const float* x, const float* d, int n, float* out) {
  map(x, d, n, out, [](Vec v, Vec g) { return g * gelu_slope(v); });
}

}  // namespace
}  // namespace gpt2lab
