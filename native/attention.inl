// Attention of a few rows over the KV cache; included by kernels.inl only.
#pragma once

#include "products.inl"

namespace gpt2lab {
namespace {

template <typename Element>
Prefetch following(const Element* rows, std::size_t stride) {
  return {reinterpret_cast<const char*>(rows) + kAhead, int(stride * sizeof(Element))};
}

template <typename Element, int kM>
void score_block(const Attention& a, int block_index) {
  const auto* keys = static_cast<const Element*>(a.keys[block_index]);
  for (int c = 0; c < kTile; c += kPass) {
    Vec acc[kM][kVectors] = {};
    accumulate<kM, kVectors>(acc, a.q, a.ldq, keys + c, kTile, a.head_dim, following(keys, kTile));
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kVectors; ++v)
        store(a.scores + r * a.score_stride + block_index * kTile + c + v * kWidth, acc[r][v] * a.scale);
  }
}

// Turns one row of scores into unnormalised probabilities up to `padded`, zero beyond `length`; returns 1 / their sum.
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

// acc[r] += probabilities[first … last) · values of those positions, for kM rows.
template <typename Element, int kM>
inline void add_values(Vec (&acc)[kM][kVectors], const Attention& a, int row, int column, int first, int last) {
  for (int position = first; position < last;) {
    const int slot = position % kTile, count = kTile - slot < last - position ? kTile - slot : last - position;
    const auto* block = static_cast<const Element*>(a.values[position / kTile]);
    const Element* values = block + std::size_t(slot) * a.value_stride + column;
    accumulate<kM, kVectors>(acc, a.scores + row * a.score_stride + position, a.score_stride, values, a.value_stride,
                             count, following(values, a.value_stride));
    position += count;
  }
}

// Reads the values of visible positions only: what lies in the others may be infinite, and 0 · ∞ is not 0. All rows
// see the positions up to the first row's; the few beyond are added row by row.
template <typename Element, int kM>
void mix_values(const Attention& a, const float* norm) {
  for (int c = 0; c < a.value_stride; c += kPass) {
    Vec acc[kM][kVectors] = {};
    const int shared = a.first_position + 1;
    add_values<Element, kM>(acc, a, 0, c, 0, shared);
    for (int r = 1; r < kM; ++r) {
      Vec own[1][kVectors];
      for (int v = 0; v < kVectors; ++v) own[0][v] = acc[r][v];
      add_values<Element, 1>(own, a, r, c, shared, shared + r);
      for (int v = 0; v < kVectors; ++v) acc[r][v] = own[0][v];
    }
    for (int r = 0; r < kM; ++r) {
      float* out = a.out + r * a.ldo + c;
      for (int v = 0; v < kVectors; ++v) {
        const Vec y = acc[r][v] * norm[r];
        const int room = a.head_dim - c - v * kWidth;
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
}

template <typename Element, int kM>
void attend(const Attention& a) {
  const int blocks = (a.first_position + kM - 1) / kTile + 1;
  for (int b = 0; b < blocks; ++b) score_block<Element, kM>(a, b);
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
