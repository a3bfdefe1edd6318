// The layout of the weights of int8 and int4 in memory.
#pragma once

#include "kernels.h"

namespace gpt2lab {

// A block of a tile of kTile outputs holds the weights, [steps][kTile] of four bytes; for int4 the groups' factors,
// [groups][kTile] bytes; and the scales, [kTile] floats. A step of int8 holds four inputs. A step of int4 holds eight
// of a group: the low halves of its bytes are inputs of the group's first half, the high halves those of the second.
template <Precision kP>
struct WeightBlock {
  static constexpr int kStep = kTile * 4;
  static constexpr int kInputs = kP == Precision::int8 ? 4 : 8;  // of a step
  static constexpr int factors_at(int depth) { return depth / kInputs * kStep; }
  static constexpr int scales_at(int depth) {
    return factors_at(depth) + (kP == Precision::int4 ? depth / kGroupInputs * kTile : 0);
  }
  static constexpr int bytes(int depth) { return scales_at(depth) + kTile * int(sizeof(float)); }
  static constexpr int kWhole = bytes(kBlock);

  // Returns where four inputs from `input` on of output `output` of the tile lie in the block.
  static constexpr int step_at(int input, int output) {
    constexpr int kHalf = kGroupInputs / 2;
    const int step = kP == Precision::int8 ? input / 4 : input / kGroupInputs * kHalf / 4 + input % kHalf / 4;
    return step * kStep + output * 4;
  }

  static constexpr std::size_t tile_bytes(int k) {
    const int last = block_count(k) - 1;
    return std::size_t(last) * kWhole + bytes(block_depth(k, last));
  }
};

}  // namespace gpt2lab
