// The matrix unit (AMX) in software, bit for bit as Intel's manual defines it: for tests on processors without one.
//
// With the CMake option GPT2LAB_EMULATED_TILES, the sources of the kernels begin with this file, and its macros take
// the place of the compiler's intrinsics. It needs AVX-512 and knows only the instructions that the kernels use.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace gpt2lab::emulated {

struct Tile {
  int rows, bytes;  // bytes of a row
  alignas(64) char data[16][64];
};

inline thread_local Tile tiles[8];

inline void configure(const void* shapes) {
  const auto* bytes = static_cast<const char*>(shapes);
  for (int t = 0; t < 8; ++t) {
    std::uint16_t row_bytes = 0;
    std::memcpy(&row_bytes, bytes + 16 + 2 * t, 2);
    tiles[t] = Tile{};
    tiles[t].rows = bytes[48 + t];
    tiles[t].bytes = row_bytes;
  }
}

inline void zero(int t) { std::memset(tiles[t].data, 0, sizeof tiles[t].data); }

inline void load(int t, const void* from, std::ptrdiff_t row) {
  zero(t);
  for (int r = 0; r < tiles[t].rows; ++r)
    std::memcpy(tiles[t].data[r], static_cast<const char*>(from) + r * row, std::size_t(tiles[t].bytes));
}

inline void store(int t, void* to, std::ptrdiff_t row) {
  for (int r = 0; r < tiles[t].rows; ++r)
    std::memcpy(static_cast<char*>(to) + r * row, tiles[t].data[r], std::size_t(tiles[t].bytes));
}

// Adds, for each four bytes in a row of a and those with the same number in a column of b, the sum of their products.
inline void dpbssd(int sums, int a, int b) {
  for (int m = 0; m < tiles[sums].rows; ++m) {
    __m512i sum = _mm512_load_si512(tiles[sums].data[m]);
    for (int k = 0; k < tiles[a].bytes / 4; ++k) {
      int four = 0;
      std::memcpy(&four, tiles[a].data[m] + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(four), w = _mm512_load_si512(tiles[b].data[k]);
      const __m512i x_odd = _mm512_srai_epi16(x, 8), w_odd = _mm512_srai_epi16(w, 8);
      const __m512i x_even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8);
      const __m512i w_even = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x_even, w_even));
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x_odd, w_odd));
    }
    _mm512_store_si512(tiles[sums].data[m], sum);
  }
}

// Adds the products of even and of odd numbers separately, from zero; then both sums; then that to the tile. Rounds to
// nearest, and takes subnormal numbers for zero. A product of two bfloat16 numbers is exact.
inline void dpbf16ps(int sums, int a, int b) {
  constexpr unsigned kFlushes = 0x9fc0;  // round to nearest, all exceptions masked, subnormal numbers are zero
  const unsigned before = _mm_getcsr();
  _mm_setcsr(kFlushes);
  const __m512i high = _mm512_set1_epi32(int(0xffff0000));
  for (int m = 0; m < tiles[sums].rows; ++m) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int k = 0; k < tiles[a].bytes / 4; ++k) {
      int pair = 0;
      std::memcpy(&pair, tiles[a].data[m] + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(pair), w = _mm512_load_si512(tiles[b].data[k]);
      even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                             _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), even);
      odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
                            _mm512_castsi512_ps(_mm512_and_si512(w, high)), odd);
    }
    const __m512 sum = _mm512_add_ps(_mm512_load_ps(tiles[sums].data[m]), _mm512_add_ps(even, odd));
    _mm512_store_ps(tiles[sums].data[m], sum);
  }
  _mm_setcsr(before);
}

}  // namespace gpt2lab::emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbf16ps
#define _tile_loadconfig(shapes) gpt2lab::emulated::configure(shapes)
#define _tile_release() ((void)0)
#define _tile_zero(t) gpt2lab::emulated::zero(t)
#define _tile_loadd(t, from, row) gpt2lab::emulated::load(t, from, row)
#define _tile_stream_loadd(t, from, row) gpt2lab::emulated::load(t, from, row)
#define _tile_stored(t, to, row) gpt2lab::emulated::store(t, to, row)
#define _tile_dpbssd(sums, a, b) gpt2lab::emulated::dpbssd(sums, a, b)
#define _tile_dpbf16ps(sums, a, b) gpt2lab::emulated::dpbf16ps(sums, a, b)
