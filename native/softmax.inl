// Rows of attention's probabilities and of their gradients; included by kernels.inl only.
#pragma once

#include "kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

// s = e^(scale · s - offset) up to `length`, zero from there to `padded`, a multiple of kTile.
void softmax_again(float* s, int length, int padded, float scale, float offset) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  for (int i = 0; i < padded; i += kWidth) store(s + i, exp(load(s + i) * scale - offset));
}

// The same with the largest scale · s for the offset.
RowSum softmax_row(float* s, int length, int padded, float scale) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  Vec top = splat(-__builtin_inff());
  for (int i = 0; i < padded; i += kWidth) top = vmax(top, load(s + i));
  const float largest = max(top) * scale;
  Vec total = {};
  for (int i = 0; i < padded; i += kWidth) {
    const Vec e = exp(load(s + i) * scale - largest);
    store(s + i, e);
    total += e;
  }
  return {largest, sum(total)};
}

// d = p · (d - mean) · scale, where `mean` is that of d by p, which is also the product of the row's result and gradient.
void softmax_gradient(float* d, const float* p, int padded, float scale) {
  Vec sums[2] = {};
  int i = 0;
  for (; i + 2 * kWidth <= padded; i += 2 * kWidth)
    for (int j = 0; j < 2; ++j) sums[j] = fma(load(p + i + j * kWidth), load(d + i + j * kWidth), sums[j]);
  const float mean = sum(sums[0] + sums[1]);
  for (int i = 0; i < padded; i += kWidth) store(d + i, load(p + i) * (load(d + i) - mean) * scale);
}

}  // namespace
}  // namespace gpt2lab
