// Rows of attention's probabilities and of their gradients; included by kernels.inl only.
#pragma once

#include "vector.inl"

namespace gpt2lab {
namespace {

// s = e^(scale · s - log_sum) up to `length`, zero from there to `padded`, a multiple of kTile.
void softmax_again(float* s, int length, int padded, float scale, float log_sum) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  for (int i = 0; i < padded; i += kWidth) store(s + i, exp(load(s + i) * scale - log_sum));
}

// The same with the log_sum that makes a softmax of it, which is returned.
float softmax_row(float* s, int length, int padded, float scale) {
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
  const float all = sum(total);
  for (int i = 0; i < padded; i += kWidth) store(s + i, load(s + i) / all);
  return largest + __builtin_logf(all);
}

// d = p · (d - mean) · scale, where `mean` is that of d by p.
void softmax_gradient(float* d, const float* p, int padded, float mean, float scale) {
  for (int i = 0; i < padded; i += kWidth) store(d + i, load(p + i) * (load(d + i) - mean) * scale);
}

}  // namespace
}  // namespace gpt2lab
