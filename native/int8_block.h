// The layout of one head's keys and values of int8 in a block of the KV cache.
#pragma once

#include "kernels.h"

namespace gpt2lab {

// Keys lie as [stride / 4][kTile] of four numbers, values as [kTile / 4][stride] of four positions, as the inputs and
// outputs of a product do; then the scales of the keys and those of the values follow, [kTile] floats each.
struct Int8Block {
  int stride;  // numbers of a head, rounded up to whole tiles; what the padding holds does not matter

  explicit constexpr Int8Block(int head_dim) : stride(rounded_up(head_dim, kTile)) {}
  static constexpr int kKeyStep = kTile * 4;               // bytes of four numbers of all keys
  constexpr int value_step() const { return stride * 4; }  // bytes of four positions of all values
  constexpr std::size_t values_at() const { return std::size_t(kTile) * stride; }
  constexpr std::size_t scales_at() const { return 2 * values_at(); }
  constexpr std::size_t bytes() const { return scales_at() + 2 * kTile * sizeof(float); }
};

}  // namespace gpt2lab
