// Philox4x32-10, a counter-based random number generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). Every number of every stream is computed independently, in any order.
#pragma once

#include <array>
#include <cstdint>

namespace gpt2lab {

using PhiloxBlock = std::array<std::uint32_t, 4>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t(0xD2511F53u) * counter[0];
    const std::uint64_t b = std::uint64_t(0xCD9E8D57u) * counter[2];
    counter = {std::uint32_t(b >> 32) ^ counter[1] ^ key[0], std::uint32_t(b),
               std::uint32_t(a >> 32) ^ counter[3] ^ key[1], std::uint32_t(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Returns a number uniform in [0, 1) with 53 random bits: the one that draws the token at `position` of stream `stream`
// of `seed`.
inline double philox_uniform(std::uint64_t seed, std::uint64_t stream, std::uint32_t position) {
  const PhiloxBlock x = philox4x32({position, 0, std::uint32_t(stream), std::uint32_t(stream >> 32)},
                                   {std::uint32_t(seed), std::uint32_t(seed >> 32)});
  return (double(x[0] >> 5) * 67108864.0 + double(x[1] >> 6)) / 9007199254740992.0;
}

}  // namespace gpt2lab
