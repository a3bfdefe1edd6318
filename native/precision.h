// The formats in which weights, keys and values are stored.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpt2lab {

// bfloat16 is the upper half of a float32. q8_0 and q4_0 are GGUF's: blocks of kBlock inputs of one output, with a
// float16 scale d; a value is d * q with q an int8, or d * (q - 8) with q of 4 bits.
enum class Precision { float32, bfloat16, q8_0, q4_0 };

constexpr int kBlock = 32;

struct Half {  // IEEE float16
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

constexpr bool is_quantized(Precision p) { return p == Precision::q8_0 || p == Precision::q4_0; }

// Returns the number that, added to a quantised weight, makes it unsigned, as some instruction sets require.
constexpr int zero_point(Precision p) { return p == Precision::q8_0 ? 128 : 8; }

constexpr int block_count(int k) { return (k + kBlock - 1) / kBlock; }

// Rounds to nearest, ties to even; numbers that are too large become infinite.
Half to_half(float x);
float to_float(Half h);

}  // namespace gpt2lab
