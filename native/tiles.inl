// Training's kernels for the matrix unit; kernels_tiles.cpp includes this file, compiled for AMX.
//
// A tile has 16 lines of 32 numbers and 1,024 bytes. As rows, a line's numbers lie side by side. As columns, pairs of
// numbers lie side by side by line, as the unit wants its second operand. Transposing 16 x 16 pairs turns one form into
// the other, so a tile is loaded in the form that its lines have in memory, and transposed if the other one is wanted.
#pragma once

#include "gelu.inl"
#include "tile_kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileRegisters {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline __mmask16 mask_of(int count) { return __mmask16(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1); }

// Loads up to 16 numbers; zeros take the place of those that `mask` leaves out.
inline Vec load_some(const float* p, __mmask16 mask) { return (Vec)_mm512_maskz_loadu_ps(mask, p); }
inline Vec load_some(const BFloat16* p, __mmask16 mask) {
  return (Vec)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(mask, p)),
                                      16);
}

inline __m512i rounded(Vec low, Vec high) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }
inline __m256i rounded(Vec x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }

// Loads up to 32 numbers as bfloat16: 16 from `low` and 16 from `high`.
template <bool kGelu>
inline __m512i load_rounded(const float* low, __mmask16 low_mask, const float* high, __mmask16 high_mask) {
  const Vec a = load_some(low, low_mask), b = load_some(high, high_mask);
  return kGelu ? rounded(gelu(a), gelu(b)) : rounded(a, b);
}

template <bool kGelu>
inline __m512i load_rounded(const BFloat16* low, __mmask16 low_mask, const BFloat16* high, __mmask16 high_mask) {
  if (kGelu) return rounded(gelu(load_some(low, low_mask)), gelu(load_some(high, high_mask)));
  const __m512i a = _mm512_maskz_inserti64x4(0xff, __m512i{}, _mm256_maskz_loadu_epi16(low_mask, low), 0);
  return _mm512_maskz_inserti64x4(0xff, a, _mm256_maskz_loadu_epi16(high_mask, high), 1);
}

// Transposes 16 x 16 pairs.
inline void transpose(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_maskz_unpacklo_epi32(0xffff, x[i], x[i + 1]);
    y[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_maskz_unpacklo_epi64(0xff, y[i + j], y[i + 2 + j]);
      x[i + 2 * j + 1] = _mm512_maskz_unpackhi_epi64(0xff, y[i + j], y[i + 2 + j]);
    }
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_maskz_shuffle_i32x4(0xffff, x[j], x[4 + j], 0x88);
    const __m512i b = _mm512_maskz_shuffle_i32x4(0xffff, x[8 + j], x[12 + j], 0x88);
    const __m512i c = _mm512_maskz_shuffle_i32x4(0xffff, x[j], x[4 + j], 0xdd);
    const __m512i d = _mm512_maskz_shuffle_i32x4(0xffff, x[8 + j], x[12 + j], 0xdd);
    y[j] = _mm512_maskz_shuffle_i32x4(0xffff, a, b, 0x88);
    y[8 + j] = _mm512_maskz_shuffle_i32x4(0xffff, a, b, 0xdd);
    y[4 + j] = _mm512_maskz_shuffle_i32x4(0xffff, c, d, 0x88);
    y[12 + j] = _mm512_maskz_shuffle_i32x4(0xffff, c, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

// Packs the tile of up to 16 lines and 32 numbers that begins at `from`.
template <bool kColumns, bool kAlong, bool kGelu, typename T>
inline void pack_tile(const T* from, std::size_t distance, int lines, int numbers, BFloat16* out) {
  __m512i x[16];
  if (kAlong) {  // x[i] is line i
    const __mmask16 low = mask_of(numbers), high = mask_of(numbers - 16);
    for (int i = 0; i < 16; ++i)
      x[i] = i < lines ? load_rounded<kGelu>(from + i * distance, low, from + i * distance + 16, high) : __m512i{};
  } else {  // x[i] is pair i of every line
    alignas(64) static constexpr std::uint16_t kPairs[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i places = _mm512_load_si512(kPairs);
    const __mmask16 mask = mask_of(lines);
    for (int i = 0; i < 16; ++i) {
      const T* pair = from + 2 * i * distance;
      const __mmask16 low = 2 * i < numbers ? mask : 0, high = 2 * i + 1 < numbers ? mask : 0;
      x[i] = _mm512_maskz_permutexvar_epi16(~__mmask32(), places,
                                            load_rounded<kGelu>(pair, low, high ? pair + distance : pair, high));
    }
  }
  if (kColumns == kAlong) transpose(x);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * kTileDepth, x[i]);
}

// Packs some groups together where lines lie side by side, so that every page is met once for all of them.
template <bool kColumns, bool kAlong, bool kGelu, typename T>
inline void pack_lines(const Lines& lines, int count, int k, BFloat16* out, std::size_t tiles) {
  constexpr int kTogether = kAlong ? kTileLines : 16 * kTileLines;
  const T* from = static_cast<const T*>(lines.data);
  const std::size_t distance = kAlong ? lines.line : lines.step;
  for (int first = 0; first < count; first += kTogether)
    for (int at = 0; at < k; at += kTileDepth)
      for (int line = first; line < count && line < first + kTogether; line += kTileLines) {
        const T* tile = from + (kAlong ? line * distance + at : at * distance + line);
        BFloat16* to = out + line / kTileLines * tiles + at / kTileDepth * kTileSize;
        pack_tile<kColumns, kAlong, kGelu>(tile, distance, count - line, k - at, to);
      }
}

template <bool kColumns, bool kGelu, typename T>
inline void pack_some(const Lines& lines, int count, int k, BFloat16* out, std::size_t tiles) {
  if (lines.step == 1) pack_lines<kColumns, true, kGelu, T>(lines, count, k, out, tiles);
  else pack_lines<kColumns, false, kGelu, T>(lines, count, k, out, tiles);
}

template <bool kColumns>
void pack_tiles(const Lines& lines, int count, int k, bool gelu, BFloat16* out, std::size_t tiles) {
  if (lines.wide) {
    if (gelu) pack_some<kColumns, true, float>(lines, count, k, out, tiles);
    else pack_some<kColumns, false, float>(lines, count, k, out, tiles);
  } else {
    if (gelu) pack_some<kColumns, true, BFloat16>(lines, count, k, out, tiles);
    else pack_some<kColumns, false, BFloat16>(lines, count, k, out, tiles);
  }
}

// Adds a · b to tiles 4 to 7, two groups of rows by two of columns. Tiles 0 and 1 hold rows, 2 and 3 columns.
template <bool kTwoRows, bool kTwoColumns>
inline void multiply_steps(const BFloat16* a, std::size_t a_tiles, const BFloat16* b, std::size_t b_tiles, int steps) {
  for (int i = 0; i < steps; ++i, a += kTileSize, b += kTileSize) {
    _tile_loadd(0, a, 64);
    _tile_loadd(2, b, 64);
    _tile_dpbf16ps(4, 0, 2);
    if (kTwoColumns) {
      _tile_loadd(3, b + b_tiles, 64);
      _tile_dpbf16ps(5, 0, 3);
    }
    if (kTwoRows) {
      _tile_loadd(1, a + a_tiles, 64);
      _tile_dpbf16ps(6, 1, 2);
      if (kTwoColumns) _tile_dpbf16ps(7, 1, 3);
    }
  }
}

constexpr int kBlockLines = 2 * kTileLines;  // of rows and of columns that are computed together
constexpr int kStripRows = 256;              // rows that stay in the second-level cache while columns pass
constexpr int kSteps = 16;                   // tiles of columns that stay in the first-level cache while rows pass

// A part of a product: 32 columns by some rows, of which `steps` tiles from `step` on are added to the sums so far, or
// to zero where these are null.
struct Strip {
  int row, rows, column, step, steps;
  const float* before;
  std::size_t before_row;
  float* sums;
  std::size_t row_distance;
};

// Computes up to 32 x 32 sums of a strip, from its row `at` on.
template <bool kTwoRows, bool kTwoColumns>
inline void multiply_block(const TileProduct& p, const Strip& s, int at) {
  if (s.before) {
    const float* before = s.before + at * s.before_row;
    const std::size_t bytes = s.before_row * sizeof(float);
    _tile_loadd(4, before, bytes);
    if (kTwoColumns) _tile_loadd(5, before + 16, bytes);
    if (kTwoRows) _tile_loadd(6, before + 16 * s.before_row, bytes);
    if (kTwoRows && kTwoColumns) _tile_loadd(7, before + 16 * s.before_row + 16, bytes);
  } else {
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
  }
  const BFloat16* a = p.a + (s.row + at) / kTileLines * p.a_tiles + s.step * kTileSize;
  const BFloat16* b = p.b + s.column / kTileLines * p.b_tiles + s.step * kTileSize;
  multiply_steps<kTwoRows, kTwoColumns>(a, p.a_tiles, b, p.b_tiles, s.steps);
  float* sums = s.sums + at * s.row_distance;
  const std::size_t bytes = s.row_distance * sizeof(float);
  _tile_stored(4, sums, bytes);
  if (kTwoColumns) _tile_stored(5, sums + 16, bytes);
  if (kTwoRows) _tile_stored(6, sums + 16 * s.row_distance, bytes);
  if (kTwoRows && kTwoColumns) _tile_stored(7, sums + 16 * s.row_distance + 16, bytes);
}

template <bool kTwoColumns>
inline void multiply_rows(const TileProduct& p, const Strip& s) {
  int at = 0;
  for (; s.rows - at > kTileLines; at += kBlockLines) multiply_block<true, kTwoColumns>(p, s, at);
  if (at < s.rows) multiply_block<false, kTwoColumns>(p, s, at);
}

inline void multiply_strip(const TileProduct& p, const Strip& s) {
  asm volatile("" ::: "memory");  // loads and stores of tiles do not tell the compiler that they use memory
  if (p.n - s.column > kTileLines) multiply_rows<true>(p, s);
  else multiply_rows<false>(p, s);
  asm volatile("" ::: "memory");
}

// Computes a strip by way of a buffer: one at the edge, with a bias, of results in bfloat16, or of many steps.
inline void multiply_buffered(const TileProduct& p, Strip s, int steps) {
  alignas(64) float buffer[kStripRows * kBlockLines];
  const __mmask16 masks[2] = {mask_of(p.n - s.column), mask_of(p.n - s.column - 16)};
  if (p.before)
    for (int r = 0; r < s.rows; ++r)
      for (int v = 0; v < 2; ++v)
        store(buffer + r * kBlockLines + v * 16, load_some(s.before + r * s.before_row + v * 16, masks[v]));
  s.before = p.before ? buffer : nullptr, s.sums = buffer, s.before_row = s.row_distance = kBlockLines;
  for (; s.step < steps; s.step += kSteps, s.before = buffer) {
    s.steps = steps - s.step < kSteps ? steps - s.step : kSteps;
    multiply_strip(p, s);
  }
  const ResultRows out = p.out.from(s.row, s.column);
  for (int v = 0; v < 2 && masks[v]; ++v) {
    const Vec bias = p.bias ? load_some(p.bias + s.column + v * 16, masks[v]) : Vec{};
    for (int r = 0; r < s.rows; ++r) {
      const Vec y = load(buffer + r * kBlockLines + v * 16) + bias;
      const std::size_t at = r * out.row + v * 16;
      if (out.wide) _mm512_mask_storeu_ps(static_cast<float*>(out.data) + at, masks[v], (__m512)y);
      else _mm256_mask_storeu_epi16(static_cast<BFloat16*>(out.data) + at, masks[v], rounded(y));
    }
  }
}

void multiply_tiles(const TileProduct& p) {
  static constexpr TileRegisters registers;
  _tile_loadconfig(&registers);
  const int steps = (p.k + kTileDepth - 1) / kTileDepth, whole_rows = p.m - p.m % kTileLines;
  const bool direct = p.out.wide && !p.bias && steps <= kSteps && whole_rows == p.m;
  for (int row = 0; row < p.m; row += kStripRows)
    for (int column = 0; column < p.n; column += kBlockLines) {
      Strip s{
          row,      p.m - row < kStripRows ? p.m - row : kStripRows, column, 0, steps, nullptr, p.before_row, nullptr,
          p.out.row};
      if (p.before) s.before = p.before + row * p.before_row + column;
      if (direct && p.n - column >= kBlockLines) {
        s.sums = static_cast<float*>(p.out.data) + row * p.out.row + column;
        multiply_strip(p, s);
      } else {
        multiply_buffered(p, s, steps);
      }
    }
  _tile_release();
}

void gelu_gradient_rounded(const BFloat16* x, const BFloat16* d, int n, BFloat16* out) {
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    _mm256_mask_storeu_epi16(out + i, mask, rounded(load_some(d + i, mask) * gelu_slope(load_some(x + i, mask))));
  }
}

template <typename T>
inline void add_all_rows(const T* x, std::size_t row, int rows, int n, float* sums) {
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    Vec sum = load_some(sums + i, mask);
    for (int r = 0; r < rows; ++r) sum += load_some(x + r * row + i, mask);
    _mm512_mask_storeu_ps(sums + i, mask, (__m512)sum);
  }
}

void add_rows(const void* x, bool wide, std::size_t row, int rows, int n, float* sums) {
  if (wide) add_all_rows(static_cast<const float*>(x), row, rows, n, sums);
  else add_all_rows(static_cast<const BFloat16*>(x), row, rows, n, sums);
}

void round_scaled(const float* x, int n, float scale, BFloat16* out) {
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    _mm256_mask_storeu_epi16(out + i, mask, rounded(load_some(x + i, mask) * scale));
  }
}

float cross_entropy(BFloat16* x, int n, std::int64_t target) {
  const Vec lowest = splat(-__builtin_inff());
  Vec tops[2] = {lowest, lowest}, sums[2] = {};
  for (int i = 0; i < n; i += 32)
    for (int v = 0; v < 2; ++v) {
      const __mmask16 mask = mask_of(n - i - 16 * v);
      const Vec each = load_some(x + i + 16 * v, mask);
      tops[v] = (Vec)_mm512_mask_max_ps((__m512)tops[v], mask, (__m512)tops[v], (__m512)each);
    }
  const float largest = max(greater(tops[0], tops[1]));
  for (int i = 0; i < n; i += 32)
    for (int v = 0; v < 2; ++v) {
      const __mmask16 mask = mask_of(n - i - 16 * v);
      const Vec e = exp(load_some(x + i + 16 * v, mask) - largest);
      sums[v] = (Vec)_mm512_mask_add_ps((__m512)sums[v], mask, (__m512)sums[v], (__m512)e);
    }
  double sum = 0;
  for (int i = 0; i < 16; ++i) sum += double(sums[0][i]) + double(sums[1][i]);
  const float log_sum = largest + float(__builtin_log(sum));
  const float loss = log_sum - load_some(x + target, 1)[0];
  const Vec chosen = exp(load_some(x + target, 1) - log_sum) - 1.0f;
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    _mm256_mask_storeu_epi16(x + i, mask, rounded(exp(load_some(x + i, mask) - log_sum)));
  }
  _mm256_mask_storeu_epi16(x + target, 1, rounded(chosen));
  return loss;
}

}  // namespace
}  // namespace gpt2lab
