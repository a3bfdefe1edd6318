// Layer norm and its gradient; included by kernels.inl only.
#pragma once

#include "vector.inl"

namespace gpt2lab {
namespace {

struct Moments {
  float mean, scale;  // of one row; the scale is one over the standard deviation
};

inline Moments moments(const float* x, float epsilon, int n) {
  const float mean = sum_of(x, n, 0.0f, [](Vec v) { return v; }) / float(n);
  const float squares = sum_of(x, n, mean, [mean](Vec v) { return (v - mean) * (v - mean); });
  return {mean, 1.0f / __builtin_sqrtf(squares / float(n) + epsilon)};
}

void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, int n, float* out) {
  const auto [mean, scale] = moments(x, epsilon, n);
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, (load(x + i) - mean) * scale * load(gain + i) + load(bias + i));
  for (; i < n; ++i) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

// Computes (g - mean of g - h · mean of g · h) · scale, where h = (x - mean) · scale and g = d · gain.
void layer_norm_gradient(const float* x, const float* d, const float* gain, float epsilon, int n, float* out,
                         float* d_gain, float* d_bias) {
  const auto [mean, scale] = moments(x, epsilon, n);
  Lanes<Vec> plain_sums, along_sums;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int p = 0; p < plain_sums.kParts; ++p) {
      const int at = i + p * kWidth;
      const Vec h = (load(x + at) - mean) * scale, each = load(d + at), g = each * load(gain + at);
      plain_sums.part[p] += g;
      along_sums.part[p] = fma(g, h, along_sums.part[p]);
      store(d_gain + at, fma(each, h, load(d_gain + at)));
      store(d_bias + at, load(d_bias + at) + each);
    }
  float plain = plain_sums.sum(), along = along_sums.sum();
  for (; i < n; ++i) {
    const float h = (x[i] - mean) * scale;
    plain += d[i] * gain[i];
    along += d[i] * gain[i] * h;
    d_gain[i] += d[i] * h;
    d_bias[i] += d[i];
  }
  plain /= float(n), along /= float(n);
  for (i = 0; i + kWidth <= n; i += kWidth) {
    const Vec h = (load(x + i) - mean) * scale;
    store(out + i, (load(d + i) * load(gain + i) - plain - h * along) * scale);
  }
  for (; i < n; ++i) out[i] = (d[i] * gain[i] - plain - (x[i] - mean) * scale * along) * scale;
}

}  // namespace
}  // namespace gpt2lab
