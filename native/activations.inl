// The activations of GPT-2's family besides GELU in its tanh form; included by kernels.inl only.
#pragma once

#include "gelu.inl"
#include "kernels.h"

namespace gpt2lab {
namespace {

inline Vec relu(Vec x) { return select(x > 0.0f, x, Vec{}); }

// Computes x · sigmoid(x).
inline Vec silu(Vec x) { return x / (exp(-x) + 1.0f); }

// Computes x · P(Z < x) for a standard normal Z, as max(x, 0) - |x| · P(Z < -|x|), which cancels nothing. P(Z < -a) is
// e^(-a²/2) times a polynomial in t = 1 / (1 + 0.33 a), within 3e-9 before rounding.
inline Vec exact_gelu(Vec x) {
  constexpr float kPolynomial[] = {-0.21570642f, 0.3217816f, -0.07963651f, 0.17554803f, 0.12108809f, 0.13241725f, 0.0f};
  const Vec a = greater(x, -x), t = splat(1.0f) / (a * 0.33f + 1.0f);
  Vec p = splat(0.044507973f);
  for (const float c : kPolynomial) p = p * t + splat(c);
  return relu(x) - a * (exp(x * x * -0.5f) * p);
}

void activate(Activation activation, float* x, int n) {
  switch (activation) {
    case Activation::gelu_new: return map(x, x, n, x, [](Vec v, Vec) { return gelu(v); });
    case Activation::gelu: return map(x, x, n, x, [](Vec v, Vec) { return exact_gelu(v); });
    case Activation::relu: return map(x, x, n, x, [](Vec v, Vec) { return relu(v); });
    case Activation::silu: return map(x, x, n, x, [](Vec v, Vec) { return silu(v); });
  }
}

}  // namespace
}  // namespace gpt2lab
