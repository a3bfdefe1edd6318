// Layer norm and its gradient; included by kernels.inl only.
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

struct Moments {
  float mean, scale;  // of one row; the scale is one over the standard deviation
};

inline Moments moments(const float* x, float epsilon, int n) {
  const float mean = sum_of(x, n) / float(n);
  Vec squares = {};
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec d = load(x + i) - mean;
    squares = fma(d, d, squares);
  }
  float s = sum(squares);
  for (; i < n; ++i) s += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / __builtin_sqrtf(s / float(n) + epsilon)};
}

void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, int n, float* out) {
  const auto [mean, scale] = moments(x, epsilon, n);
  int i = 0;
  for (; i + kWidth <= n; i += kWidth)
    store(out + i, fma((load(x + i) - mean) * scale, load(gain + i), load(bias + i)));
  for (; i < n; ++i) out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

// Computes (g - mean of g - h · mean of g · h) · scale, where h = (x - mean) · scale and g = d · gain.
void layer_norm_gradient(const float* x, const float* d, const float* gain, float epsilon, int n, float* out,
                         float* d_gain, float* d_bias) {
  const auto [mean, scale] = moments(x, epsilon, n);
  Vec plain_sums = {}, along_sums = {};
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec h = (load(x + i) - mean) * scale, each = load(d + i), g = each * load(gain + i);
    plain_sums += g;
    along_sums = fma(g, h, along_sums);
    store(d_gain + i, fma(each, h, load(d_gain + i)));
    store(d_bias + i, load(d_bias + i) + each);
  }
  float plain = sum(plain_sums), along = sum(along_sums);
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
