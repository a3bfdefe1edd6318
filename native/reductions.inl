// Layer norm; included by kernels.inl only.
#pragma once

#include "vector.inl"

namespace gpt2lab {
namespace {

inline float sum_of(const float* x, int n) {
  Vec total = {};
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) total += load(x + i);
  float s = sum(total);
  for (; i < n; ++i) s += x[i];
  return s;
}

void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, int n, float* out) {
  const float mean = sum_of(x, n) / float(n);
  Vec squares = {};
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec d = load(x + i) - mean;
    squares = fma(d, d, squares);
  }
  float s = sum(squares);
  for (; i < n; ++i) s += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / __builtin_sqrtf(s / float(n) + epsilon);
  for (i = 0; i + kWidth <= n; i += kWidth)
    store(out + i, fma((load(x + i) - mean) * scale, load(gain + i), load(bias + i)));
  for (; i < n; ++i) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

}  // namespace
}  // namespace gpt2lab
