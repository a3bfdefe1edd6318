// Sums over rows of numbers: layer norm, and the exponentials of the sampler; included by kernels.inl only.
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

constexpr int kDoubles = kWidth / 2;

// Sums lane by lane, then over the lanes in order.
inline double sum_lanes(DoubleVec lanes) {
  double total = 0;
  for (int i = 0; i < kDoubles; ++i) total += lanes[i];
  return total;
}

double exp_all(const double* x, int n, double* out) {
  DoubleVec total = {};
  int i = 0;
  for (; i + kDoubles <= n; i += kDoubles) {
    const DoubleVec e = exp(DoubleVec(*reinterpret_cast<const UnalignedDoubleVec*>(x + i)));
    *reinterpret_cast<UnalignedDoubleVec*>(out + i) = e;
    total += e;
  }
  double rest = 0;
  for (; i < n; ++i) {
    const DoubleVec e = exp(DoubleVec{} + x[i]);
    rest += out[i] = e[0];
  }
  return sum_lanes(total) + rest;
}

double exp_sum(const float* x, int n, double largest) {
  DoubleVec total = {};
  int i = 0;
  for (; i + kDoubles <= n; i += kDoubles)
    total += exp(__builtin_convertvector(*reinterpret_cast<const HalfVec*>(x + i), DoubleVec) - largest);
  double rest = 0;
  for (; i < n; ++i) rest += exp(DoubleVec{} + (x[i] - largest))[0];
  return sum_lanes(total) + rest;
}

}  // namespace
}  // namespace gpt2lab
