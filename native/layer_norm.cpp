#include "layer_norm.h"

#include <algorithm>

namespace gpt2lab {
namespace {

constexpr int kGroupRows = 64;  // rows that one thread sums one after the other

}  // namespace

void LayerNorm::forward(const float* x, const float* gain, const float* bias, float epsilon, int rows, int n,
                        float* out) {
  pool_.run([&](int thread) {
    const std::size_t end = std::size_t(rows) * (thread + 1) / pool_.size();
    for (std::size_t row = std::size_t(rows) * thread / pool_.size(); row < end; ++row)
      kernels_.layer_norm(x + row * n, gain, bias, epsilon, n, out + row * n);
  });
}

void LayerNorm::backward(const float* x, const float* gain, float epsilon, int rows, int n, float* d, float* d_gain,
                         float* d_bias) {
  const std::size_t groups = (std::size_t(rows) + kGroupRows - 1) / kGroupRows, width = n;
  if (sums_.size() < groups * 2 * width) sums_ = FloatArray(groups * 2 * width);
  pool_.run([&](int thread) {
    const std::size_t last = groups * (thread + 1) / pool_.size();
    for (std::size_t group = groups * thread / pool_.size(); group < last; ++group) {
      float* sums = sums_.data() + group * 2 * width;
      std::fill_n(sums, 2 * width, 0.0f);
      const std::size_t end = std::min<std::size_t>(rows, (group + 1) * kGroupRows);
      for (std::size_t row = group * kGroupRows; row < end; ++row)
        kernels_.layer_norm_gradient(x + row * width, d + row * width, gain, epsilon, n, d + row * width, sums,
                                     sums + width);
    }
    pool_.barrier();
    const std::size_t end = width * (thread + 1) / pool_.size();
    for (std::size_t i = width * thread / pool_.size(); i < end; ++i) {
      d_gain[i] = d_bias[i] = 0;
      for (std::size_t group = 0; group < groups; ++group) {
        d_gain[i] += sums_.data()[group * 2 * width + i];
        d_bias[i] += sums_.data()[(group * 2 + 1) * width + i];
      }
    }
  });
}

}  // namespace gpt2lab
