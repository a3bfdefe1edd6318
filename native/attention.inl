// Attention of a few rows over keys and values of floats; included by kernels.inl only.
//
// A row's positions are taken in spans of kSpan, counted from the start of its sequence: the scores of a span, their
// largest so far, the probabilities, and the values, position by position. Where a later span has a larger score, the
// sums so far are scaled to it. So a row's result is the same whichever rows are computed beside it. Multiply-adds are
// fused, or not, as a.fused says.
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

// Computes the scores of kB blocks of positions from `first_block` on, the first of them at the start of a.scores.
template <typename Element, bool kFused, int kM, int kB>
void score_blocks(const Attention& a, int first_block, float* scores) {
  for (int c = 0; c < kTile; c += kPass) {
    Vec acc[kB][kM][kVectors] = {};
    const Element* keys[kB];
    for (int b = 0; b < kB; ++b) keys[b] = static_cast<const Element*>(a.keys[first_block + b]) + c;
    for (int i = 0; i < a.head_dim; ++i)
      for (int b = 0; b < kB; ++b) {
        Vec row[kVectors];
        for (int v = 0; v < kVectors; ++v) row[v] = load(keys[b] + v * kWidth);
        __builtin_prefetch(reinterpret_cast<const char*>(keys[b]) + kAhead);
        keys[b] += kTile;
        for (int r = 0; r < kM; ++r) {
          const Vec x = splat(a.q[r * a.ldq + i]);
          for (int v = 0; v < kVectors; ++v) acc[b][r][v] = multiply_add<kFused>(x, row[v], acc[b][r][v]);
        }
      }
    for (int b = 0; b < kB; ++b)
      for (int v = 0; v < kVectors; ++v)
        for (int r = 0; r < kM; ++r) store(scores + r * kSpan + b * kTile + c + v * kWidth, acc[b][r][v] * a.scale);
  }
}

// The softmax of a row so far: its largest score, and the sum of 2^(score - largest). Scores come multiplied by log2 e.
struct Softmax {
  float largest = -__builtin_inff(), sum = 0;

  // Calls write(i, 2^(score - largest)) for a vector of the next `count` scores from number i on, with zeros for
  // further ones up to `padded`. Returns the factor for all sums so far: 2^(largest before - largest), which is 1 if
  // the largest score stays.
  template <bool kFused, typename F>
  float add(const float* s, int count, int padded, F&& write) {
    const Vec lowest = splat(-__builtin_inff());
    const int whole = count - count % kLanes;
    Lanes<Vec> last, total;
    Vec top = splat(largest);
    for (int i = 0; i < whole; i += kWidth) top = greater(top, load(s + i));
    for (int p = 0; p < last.kParts && whole < count; ++p) {
      last.part[p] = first_lanes(count - whole - p * kWidth, load(s + whole + p * kWidth), lowest);
      top = greater(top, last.part[p]);
    }
    const float before = largest;
    largest = max(top);
    const Vec shift = splat(largest);
    const auto weigh = [&](int i, int p, Vec score) {
      const Vec e = power_of_negative<kFused>(score - shift);
      total.part[p] += e;
      write(i + p * kWidth, e);
    };
    for (int i = 0; i < whole; i += kLanes)
      for (int p = 0; p < total.kParts; ++p) weigh(i, p, load(s + i + p * kWidth));
    for (int p = 0; p < total.kParts && whole < count; ++p) weigh(whole, p, last.part[p]);
    for (int i = rounded_up(count, kLanes); i < padded; i += kWidth) write(i, Vec{});
    const float factor = before == largest ? 1.0f : power_of_negative<kFused>(splat(before) - shift)[0];
    sum = sum * factor + total.sum();
    return factor;
  }

  // Turns the scores themselves into these numbers. Not inline, for there are callers for every number of rows.
  template <bool kFused>
  __attribute__((noinline)) float add(float* s, int count, int padded) {
    return add<kFused>(s, count, padded, [s](int i, Vec e) { store(s + i, e); });
  }
};

// Rows of one span of positions: what each row sees of it, and the factors for sums so far and for finished sums.
template <int kM>
struct Span {
  int first, seen[kM];
  float factor[kM], norm[kM];
  bool last;
};

// Adds probabilities[first … last) · values of these positions of the span to acc[r], for kM rows.
template <typename Element, bool kFused, int kM, int kV>
inline void add_values(Vec (&acc)[kM][kV], const Attention& a, int row, int column, int span, int first, int last) {
  while (first < last) {
    const int slot = first % kTile, count = kTile - slot < last - first ? kTile - slot : last - first;
    const auto* block = static_cast<const Element*>(a.values[(span + first) / kTile]);
    const Element* values = block + std::size_t(slot) * a.value_stride + column;
    accumulate<kM, kV, kFused>(acc, a.scores + row * kSpan + first, kSpan, values, a.value_stride, count,
                               {reinterpret_cast<const char*>(values) + kAhead, a.value_stride * int(sizeof(Element))});
    first += count;
  }
}

// Writes y to `out`, or its first `room` lanes where there is no more room.
inline void store_some(float* out, int room, Vec y) {
  if (room >= kWidth) return store(out, y);
  float lanes[kWidth];
  store(lanes, y);
  for (int i = 0; i < room; ++i) out[i] = lanes[i];
}

// Adds a span to the output columns from `column` on. Reads visible positions only: the others may hold infinite
// numbers, and 0 · ∞ is not 0. All rows see the positions up to the first row's; the few later ones are added row by
// row.
template <typename Element, bool kFused, int kM, int kV>
void mix_columns(const Attention& a, const Span<kM>& span, int column) {
  Vec acc[kM][kV] = {};
  if (span.first > 0)
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) acc[r][v] = load(a.sums + r * a.value_stride + column + v * kWidth) * span.factor[r];
  const int shared = span.seen[0];
  add_values<Element, kFused, kM, kV>(acc, a, 0, column, span.first, 0, shared);
  for (int r = 1; r < kM; ++r) {
    Vec own[1][kV];
    for (int v = 0; v < kV; ++v) own[0][v] = acc[r][v];
    add_values<Element, kFused, 1, kV>(own, a, r, column, span.first, shared, span.seen[r]);
    for (int v = 0; v < kV; ++v) acc[r][v] = own[0][v];
  }
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) {
      const int at = column + v * kWidth;
      span.last ? store_some(a.out + r * a.ldo + at, a.head_dim - at, acc[r][v] * span.norm[r])
                : store(a.sums + r * a.value_stride + at, acc[r][v]);
    }
}

template <typename Element, bool kFused, int kM>
void mix_values(const Attention& a, const Span<kM>& span) {
  constexpr int kV = kValueVectors<kM>;
  int column = 0;
  for (; column + kV * kWidth <= a.value_stride; column += kV * kWidth)
    mix_columns<Element, kFused, kM, kV>(a, span, column);
  for (; column < a.value_stride; column += kPass) mix_columns<Element, kFused, kM, kVectors>(a, span, column);
}

template <typename Element, bool kFused, int kM>
void score_span(const Attention& a, int first_block, int blocks) {
  int block = 0;
  for (; block + kScoreBlocks<kM> <= blocks; block += kScoreBlocks<kM>)
    score_blocks<Element, kFused, kM, kScoreBlocks<kM>>(a, first_block + block, a.scores + block * kTile);
  for (; block < blocks; ++block)
    score_blocks<Element, kFused, kM, 1>(a, first_block + block, a.scores + block * kTile);
}

template <typename Element, bool kFused, int kM>
void attend(const Attention& a) {
  Softmax softmax[kM];
  Span<kM> span{};
  const int end = a.first_position + kM;
  for (; span.first < end; span.first += kSpan) {
    const int size = end - span.first < kSpan ? end - span.first : kSpan, blocks = (size + kTile - 1) / kTile;
    span.last = span.first + size == end;
    score_span<Element, kFused, kM>(a, span.first / kTile, blocks);
    for (int r = 0; r < kM; ++r) {
      const int seen = a.first_position + r + 1 - span.first;
      span.seen[r] = seen < 0 ? 0 : seen < size ? seen : size;
      span.factor[r] = seen > 0 ? softmax[r].template add<kFused>(a.scores + r * kSpan, span.seen[r], blocks * kTile)
                                : 1.0f;
      span.norm[r] = 1.0f / softmax[r].sum;
    }
    mix_values<Element, kFused, kM>(a, span);
  }
}

// Calls f<Element>() for the numbers of a format that is not packed; int8 is, and bfloat16 for a matrix unit.
template <typename F>
inline void with_element(KVPrecision format, F&& f) {
  switch (format) {
    case KVPrecision::float32: return f.template operator()<float>();
    case KVPrecision::float16: return f.template operator()<Half>();
#if !defined(__AMX_BF16__)
    case KVPrecision::bfloat16: return f.template operator()<BFloat16>();
#endif
    default: __builtin_unreachable();
  }
}

template <bool kFused>
void attend_rows(const Attention& a) {
  with_count<kRows>(a.m, [&]<int kM>() {
    with_element(a.format, [&]<typename Element>() { attend<Element, kFused, kM>(a); });
  });
}

void attention(const Attention& a) { a.fused ? attend_rows<true>(a) : attend_rows<false>(a); }

// Rounds n numbers to T.
template <typename T>
void round_to(const float* x, int n, T* out) {
  int i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, load(x + i));
  if (i == n) return;
  float rest[kWidth] = {};
  T rounded[kWidth];
  for (int j = i; j < n; ++j) rest[j - i] = x[j];
  store(rounded, load(rest));
  for (int j = i; j < n; ++j) out[j] = rounded[j - i];
}

}  // namespace
}  // namespace gpt2lab
