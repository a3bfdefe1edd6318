// Rows of attention's probabilities and of their gradients; included by kernels.inl only.
#pragma once

#include "kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

// Turns s into e^(scale · s - offset) up to `length`, and into zeros from there to `padded`, a multiple of kTile.
void softmax_again(float* s, int length, int padded, float scale, float offset) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  for (int i = 0; i < padded; i += kWidth) store(s + i, exp(load(s + i) * scale - offset));
}

// Does the same with the largest scale · s as the offset.
RowSum softmax_row(float* s, int length, int padded, float scale) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  Vec top = splat(-__builtin_inff());
  for (int i = 0; i < padded; i += kWidth) top = greater(top, load(s + i));
  const float largest = max(top) * scale;
  Lanes<Vec> total;
  for (int i = 0; i < padded; i += kLanes)
    for (int p = 0; p < total.kParts; ++p) {
      float* at = s + i + p * kWidth;
      const Vec e = exp(load(at) * scale - largest);
      store(at, e);
      total.part[p] += e;
    }
  return {largest, total.sum()};
}

// Computes d = p · (d - mean) · scale, where `mean` is the mean of d weighted by p. Where scores are large, p adds up
// to slightly more or less than 1; without a division by its sum the result would not add up to 0.
void softmax_gradient(float* d, const float* p, int padded, float scale) {
  Lanes<Vec> products, total;
  for (int i = 0; i < padded; i += kLanes)
    for (int part = 0; part < total.kParts; ++part) {
      const Vec probability = load(p + i + part * kWidth);
      products.part[part] = fma(probability, load(d + i + part * kWidth), products.part[part]);
      total.part[part] += probability;
    }
  const float mean = products.sum() / total.sum();
  for (int i = 0; i < padded; i += kWidth) store(d + i, load(p + i) * (load(d + i) - mean) * scale);
}

}  // namespace
}  // namespace gpt2lab
