// The layout of one head's keys and values of int8, or of bfloat16 for a matrix unit, in a block of the KV cache.
#pragma once

#include "kernels.h"

namespace gpt2lab {

// Where n numbers take 4 bytes, keys lie as [stride / n][kTile] of n numbers, and values as [kTile / n][stride] of n
// positions, as the weights of a product do. In int8, the scales of the keys and those of the values follow, [kTile]
// floats each.
struct PackedBlock {
  int stride;  // numbers of a head, rounded up to whole tiles; the padding is zero
  int number_size;

  explicit constexpr PackedBlock(int head_dim, int bytes) : stride(rounded_up(head_dim, kTile)), number_size(bytes) {}
  static constexpr int kKeyStep = kTile * 4;               // bytes of n numbers of all keys
  constexpr int value_step() const { return stride * 4; }  // bytes of n positions of all values
  constexpr std::size_t values_at() const { return std::size_t(kTile) * stride * number_size; }
  constexpr std::size_t scales_at() const { return 2 * values_at(); }
};

}  // namespace gpt2lab
