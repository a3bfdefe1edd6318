#include "precision.h"

#include <bit>

namespace gpt2lab {

Half to_half(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = std::uint16_t(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {std::uint16_t(sign | 0x7e00)};   // NaN
  if (magnitude >= 0x477ff000) return {std::uint16_t(sign | 0x7c00)};  // rounds to 2^16 or more
  if (magnitude < 0x38800000) {  // below 2^-14, where float16 has a fixed unit: that of float32 in [0.5, 1) + 2^-1
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {std::uint16_t(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000))};
  }
  const std::uint32_t odd = magnitude >> 13 & 1;
  return {std::uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13))};
}

float to_float(Half h) {
  const std::uint32_t sign = std::uint32_t(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest << 13) * 0x1p112f));
}

}  // namespace gpt2lab
