// What weights, keys and values may be stored in.
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

// What makes a quantised weight unsigned, as some instruction sets want it.
constexpr int zero_point(Precision p) { return p == Precision::q8_0 ? 128 : 8; }

constexpr int block_count(int k) { return (k + kBlock - 1) / kBlock; }

// To nearest, ties to even; too large becomes infinite.
Half to_half(float x);
float to_float(Half h);

}  // namespace gpt2lab
