// Attention of a few rows over the KV cache; included by kernels.inl only.
#pragma once

#include "products.inl"

namespace gpt2lab {
namespace {

// The blocks of scores and the vectors of values that a pass computes at once. With one each, a few rows would give too
// few independent sums to hide the time that an addition takes.
template <int kM>
constexpr int kScoreBlocks = kM <= 2 && kRows > 2 ? 4 : 1;
template <int kM>
constexpr int kValueVectors = kM <= 2 && kRows > 2 ? kTile * 2 / kWidth : kVectors;

template <typename Element, int kM, int kB>
void score_blocks(const Attention& a, int block_index) {
  for (int c = 0; c < kTile; c += kPass) {
    Vec acc[kB][kM][kVectors] = {};
    const Element* keys[kB];
    for (int b = 0; b < kB; ++b) keys[b] = static_cast<const Element*>(a.keys[block_index + b]) + c;
    for (int i = 0; i < a.head_dim; ++i)
      for (int b = 0; b < kB; ++b) {
        Vec row[kVectors];
        for (int v = 0; v < kVectors; ++v) row[v] = load(keys[b] + v * kWidth);
        __builtin_prefetch(reinterpret_cast<const char*>(keys[b]) + kAhead);
        keys[b] += kTile;
        for (int r = 0; r < kM; ++r) {
          const Vec x = splat(a.q[r * a.ldq + i]);
          for (int v = 0; v < kVectors; ++v) acc[b][r][v] = fma(x, row[v], acc[b][r][v]);
        }
      }
    for (int b = 0; b < kB; ++b)
      for (int r = 0; r < kM; ++r)
        for (int v = 0; v < kVectors; ++v)
          store(a.scores + r * a.score_stride + (block_index + b) * kTile + c + v * kWidth, acc[b][r][v] * a.scale);
  }
}

// Turns one row of scores into unnormalised probabilities, zero from `length` to `padded`; returns 1 / their sum.
inline float softmax(float* s, int length, int padded) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  Vec top = splat(-__builtin_inff());
  for (int i = 0; i < padded; i += kWidth) top = vmax(top, load(s + i));
  const Vec largest = splat(max(top));
  Vec total = {};
  for (int i = 0; i < padded; i += kWidth) {
    const Vec e = exp(load(s + i) - largest);
    store(s + i, e);
    total += e;
  }
  return 1.0f / sum(total);
}

// Adds probabilities[first … last) · values of those positions to acc[r], for kM rows.
template <typename Element, int kM, int kV>
inline void add_values(Vec (&acc)[kM][kV], const Attention& a, int row, int column, int first, int last) {
  for (int position = first; position < last;) {
    const int slot = position % kTile, count = kTile - slot < last - position ? kTile - slot : last - position;
    const auto* block = static_cast<const Element*>(a.values[position / kTile]);
    const Element* values = block + std::size_t(slot) * a.value_stride + column;
    accumulate<kM, kV>(acc, a.scores + row * a.score_stride + position, a.score_stride, values, a.value_stride, count,
                       {reinterpret_cast<const char*>(values) + kAhead, a.value_stride * int(sizeof(Element))});
    position += count;
  }
}

// Computes the output columns from `column` on. Reads visible positions only: the others may hold infinite numbers, and
// 0 · ∞ is not 0. All rows see the positions up to the first row's; the few later ones are added row by row.
template <typename Element, int kM, int kV>
void mix_columns(const Attention& a, const float* norm, int column) {
  Vec acc[kM][kV] = {};
  const int shared = a.first_position + 1;
  add_values<Element, kM, kV>(acc, a, 0, column, 0, shared);
  for (int r = 1; r < kM; ++r) {
    Vec own[1][kV];
    for (int v = 0; v < kV; ++v) own[0][v] = acc[r][v];
    add_values<Element, 1, kV>(own, a, r, column, shared, shared + r);
    for (int v = 0; v < kV; ++v) acc[r][v] = own[0][v];
  }
  for (int r = 0; r < kM; ++r) {
    float* out = a.out + r * a.ldo + column;
    for (int v = 0; v < kV; ++v) {
      const Vec y = acc[r][v] * norm[r];
      const int room = a.head_dim - column - v * kWidth;
      if (room >= kWidth) {
        store(out + v * kWidth, y);
      } else {
        float lanes[kWidth];
        store(lanes, y);
        for (int i = 0; i < room; ++i) out[v * kWidth + i] = lanes[i];
      }
    }
  }
}

template <typename Element, int kM>
void mix_values(const Attention& a, const float* norm) {
  constexpr int kV = kValueVectors<kM>;
  int column = 0;
  for (; column + kV * kWidth <= a.value_stride; column += kV * kWidth) mix_columns<Element, kM, kV>(a, norm, column);
  for (; column < a.value_stride; column += kPass) mix_columns<Element, kM, kVectors>(a, norm, column);
}

template <typename Element, int kM>
void attend(const Attention& a) {
  const int blocks = (a.first_position + kM - 1) / kTile + 1;
  int block = 0;
  for (; block + kScoreBlocks<kM> <= blocks; block += kScoreBlocks<kM>)
    score_blocks<Element, kM, kScoreBlocks<kM>>(a, block);
  for (; block < blocks; ++block) score_blocks<Element, kM, 1>(a, block);
  float norm[kM];
  for (int r = 0; r < kM; ++r)
    norm[r] = softmax(a.scores + r * a.score_stride, a.first_position + r + 1, blocks * kTile);
  mix_values<Element, kM>(a, norm);
}

void attention(const Attention& a) {
  with_count<kRows>(a.m, [&]<int kM>() { a.half ? attend<Half, kM>(a) : attend<float, kM>(a); });
}

void to_halves(const float* x, int n, Half* out) {
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, load(x + i));
  if (i == n) return;
  float rest[kWidth] = {};
  Half halves[kWidth];
  for (int j = i; j < n; ++j) rest[j - i] = x[j];
  store(halves, load(rest));
  for (int j = i; j < n; ++j) out[j] = halves[j - i];
}

}  // namespace
}  // namespace gpt2lab
