// Products of two unpacked matrices, which are packed into panels on the way; included by kernels.inl only.
#pragma once

#include "kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

constexpr int kPanelColumns = kVectors * kWidth;

// Computes first + a · b for kRows rows by kPanelColumns columns, where `first` is c, a row of biases, or zero.
// kApart: the rows of a lie apart, and the numbers of each row side by side.
template <bool kApart>
inline void panel_product(const float* a, std::size_t distance, const float* b, int k, const float* c, std::size_t ldc,
                          const float* bias, Vec (&sums)[kRows][kVectors]) {
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = c ? load(c + r * ldc + v * kWidth) : bias ? load(bias + v * kWidth) : Vec{};
  for (int i = 0; i < k; ++i) {
    Vec row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load(b + v * kWidth);
    __builtin_prefetch(b + 8 * kPanelColumns);
    for (int r = 0; r < kRows; ++r) {
      const Vec x = splat(kApart ? a[r * distance] : a[r]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(x, row[v], sums[r][v]);
    }
    a += kApart ? 1 : distance;
    b += kPanelColumns;
  }
}

// Computes a panel at the edge, where rows or columns are missing.
template <bool kApart>
inline void edge_product(const MatmulPart& p, const float* a, const float* b, float* c, const float* bias, int rows,
                         int columns) {
  float first[kRows * kPanelColumns] = {};
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < columns; ++j) first[r * kPanelColumns + j] = p.add ? c[r * p.ldc + j] : bias ? bias[j] : 0.0f;
  Vec sums[kRows][kVectors];
  panel_product<kApart>(a, kApart ? p.a.row : p.a.step, b, p.k, first, kPanelColumns, nullptr, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(first + r * kPanelColumns + v * kWidth, sums[r][v]);
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < columns; ++j) c[r * p.ldc + j] = first[r * kPanelColumns + j];
}

template <bool kApart>
inline void matmul_rows(const MatmulPart& p) {
  const float* a = p.a.data;
  // A panel of a stays in the first-level cache, b in the second-level cache.
  for (int row = 0; row < p.m; row += kRows, a += p.a.panel) {
    for (int column = 0; column < p.n; column += kPanelColumns) {
      const float* b = p.b + std::size_t(column) * p.b_depth;
      float* c = p.c + row * p.ldc + column;
      const float* bias = p.bias ? p.bias + column : nullptr;
      if (p.m - row < kRows || p.n - column < kPanelColumns) {
        edge_product<kApart>(p, a, b, c, bias, p.m - row < kRows ? p.m - row : kRows,
                             p.n - column < kPanelColumns ? p.n - column : kPanelColumns);
        continue;
      }
      Vec sums[kRows][kVectors];
      panel_product<kApart>(a, kApart ? p.a.row : p.a.step, b, p.k, p.add ? c : nullptr, p.ldc, bias, sums);
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) store(c + r * p.ldc + v * kWidth, sums[r][v]);
    }
  }
}

void matmul_part(const MatmulPart& p) { p.a.row == 1 ? matmul_rows<false>(p) : matmul_rows<true>(p); }

typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

// Transposes four numbers of four lines into four lines.
inline void transpose(const float* x, std::size_t line, float* out, std::size_t out_line) {
  Four rows[4];
  for (int r = 0; r < 4; ++r) rows[r] = *reinterpret_cast<const UnalignedFour*>(x + r * line);
#if defined(__clang__)
  const Four a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Four b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Four d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  const Four turned[4] = {__builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
                          __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
#else
  typedef int Places __attribute__((vector_size(16)));
  constexpr Places kLow{0, 4, 1, 5}, kHigh{2, 6, 3, 7}, kFirst{0, 1, 4, 5}, kSecond{2, 3, 6, 7};
  const Four a = __builtin_shuffle(rows[0], rows[1], kLow), b = __builtin_shuffle(rows[0], rows[1], kHigh);
  const Four c = __builtin_shuffle(rows[2], rows[3], kLow), d = __builtin_shuffle(rows[2], rows[3], kHigh);
  const Four turned[4] = {__builtin_shuffle(a, c, kFirst), __builtin_shuffle(a, c, kSecond),
                          __builtin_shuffle(b, d, kFirst), __builtin_shuffle(b, d, kSecond)};
#endif
  for (int r = 0; r < 4; ++r) *reinterpret_cast<UnalignedFour*>(out + r * out_line) = turned[r];
}

// Packs panels whose lines lie side by side in memory, a few panels at a time: one at a time would visit every page
// again for each panel.
template <int kSize, int kPanels>
inline void pack_across(const float* x, std::size_t step, int k, float* out) {
  for (int i = 0; i < k; ++i) {
    for (int p = 0; p < kPanels; ++p)
      for (int j = 0; j < kSize; ++j) out[std::size_t(p) * kSize * k + j] = x[p * kSize + j];
    x += step;
    out += kSize;
  }
}

// Packs `count` lines of `k` numbers side by side into panels of kSize lines: [panel][k][kSize]. Zeros fill the last
// panel. `line` is the distance of two lines in memory, `step` that of two numbers of a line; one of them is 1.
template <int kSize>
void pack_panels(const float* x, std::size_t line, std::size_t step, int count, int k, float* out) {
  constexpr int kTogether = 4;
  int first = 0;
  for (; line == 1 && first + kTogether * kSize <= count; first += kTogether * kSize)
    pack_across<kSize, kTogether>(x + first, step, k, out + std::size_t(first) * k);
  for (; first < count; first += kSize) {
    const float* from = x + first * line;
    float* panel = out + std::size_t(first) * k;
    const int lines = count - first < kSize ? count - first : kSize;
    if (lines < kSize) {
      for (int i = 0; i < k; ++i)
        for (int j = 0; j < kSize; ++j)
          panel[std::size_t(i) * kSize + j] = j < lines ? from[j * line + i * step] : 0.0f;
    } else if (line == 1) {
      pack_across<kSize, 1>(from, step, k, panel);
    } else {  // one cache line of every line at a time: more would exceed the ways of the first-level cache
      constexpr int kSome = 16;
      for (int begin = 0; begin < k; begin += kSome) {
        const int end = begin + kSome < k ? begin + kSome : k, even = end - (end - begin) % 4;
        for (int j = 0; j + 4 <= kSize; j += 4)
          for (int i = begin; i < even; i += 4)
            transpose(from + j * line + i, line, panel + std::size_t(i) * kSize + j, kSize);
        for (int j = 0; j < kSize; ++j)
          for (int i = j < kSize / 4 * 4 ? even : begin; i < end; ++i)
            panel[std::size_t(i) * kSize + j] = from[j * line + i];
      }
    }
  }
}

}  // namespace
}  // namespace gpt2lab
