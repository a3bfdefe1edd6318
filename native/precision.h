// The formats in which weights, keys and values are stored.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpt2lab {

// bfloat16 is the upper half of a float32. int8 and int4 divide the inputs of an output into blocks of kBlock with a
// float32 scale d. In int8 a weight is d · q with q in -127 … 127. In int4 it is d · s · q: every group of kGroupInputs
// inputs has a whole number s in -15 … 15, and q is in -8 … 7, so that s · q fits into int8.
enum class Precision { float32, bfloat16, int8, int4 };

// Keys and values of int8 are d · q, with q in -127 … 127 and one float32 d for each position and head.
enum class KVPrecision { float32, float16, bfloat16, int8 };

constexpr int kBlock = 256;
constexpr int kGroupInputs = 32;
constexpr int kPadding = 64;         // int8 and int4 pad the inputs of a matrix with zeros to a multiple of it
constexpr int kBFloat16Inputs = 32;  // bfloat16, to a multiple of this
constexpr int kZeroNibble = 8;       // int4 stores q + 8

struct Half {  // IEEE float16
  std::uint16_t bits;
};
struct Int8 {
  std::int8_t value;
};
struct BFloat16 {
  std::uint16_t bits;
};

constexpr bool is_integer(Precision p) { return p == Precision::int8 || p == Precision::int4; }

constexpr int rounded_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }
constexpr int block_count(int k) { return (k + kBlock - 1) / kBlock; }
constexpr int bfloat16_blocks(int k) { return (k + kBFloat16Inputs - 1) / kBFloat16Inputs; }

// Returns the inputs of block `block` of a matrix of k inputs, with its padding.
constexpr int block_depth(int k, int block) {
  const int rest = rounded_up(k, kPadding) - block * kBlock;
  return rest < kBlock ? rest : kBlock;
}

// Rounds to nearest, ties to even; numbers that are too large become infinite.
Half to_half(float x);
float to_float(Half h);

}  // namespace gpt2lab
