// Attention of one row of each of a few sequences over keys and values of floats; included by kernels.inl only.
//
// The chains of sums are those of attention.inl, so a row's result does not depend on the sequences beside it.
#pragma once

#include "attention.inl"

namespace gpt2lab {
namespace {

// The rows for which a shared block is read at once: more would save little, and every number of rows is code.
constexpr int kTogether = kRows < 6 ? kRows : 6;

// The blocks whose scores are computed at once: with one, few rows would give too few independent sums.
template <int kM>
constexpr int kBlocksAtOnce = kRows == 2        ? 1
                              : kM == 1         ? 4
                              : 2 * kM <= kRows ? 2
                                                : 1;

// The blocks of a row, beside memory that is prefetched meanwhile.
struct BlockRun {
  const std::byte *const *blocks, *const *ahead;
  std::size_t offset, ahead_offset;

  BlockRun(const SequenceAttention& a, int row, int first)
      : blocks(a.rows[row].blocks + first), ahead(a.rows[row].ahead + first), offset(a.offset),
        ahead_offset(a.ahead_offset) {}
  template <typename Element>
  const Element* keys(int block) const {
    return reinterpret_cast<const Element*>(blocks[block] + offset);
  }
  const char* next(int block) const { return reinterpret_cast<const char*>(ahead[block] + ahead_offset); }
};

// Prefetches `bytes` bytes to the second-level cache: the first could not hold them until they are read.
template <int kBytes>
inline void prefetch_later(const char* p) {
  for (int at = 0; at < kBytes; at += kLine) __builtin_prefetch(p + at, 0, 2);
}

// Computes the scores of kB blocks for the rows of q, [kM, head_dim].
template <typename Element, bool kFused, int kM, int kB>
void score_sequences(const SequenceAttention& a, const float* q, const BlockRun& run, int first, float* scores) {
  for (int c = 0; c < kTile; c += kPass) {
    Vec acc[kB][kM][kVectors] = {};
    const Element* keys[kB];
    const char* next[kB];
    for (int b = 0; b < kB; ++b) {
      keys[b] = run.keys<Element>(first + b) + c;
      next[b] = run.next(first + b) + c * sizeof(Element);
    }
    for (int i = 0; i < a.head_dim; ++i)
      for (int b = 0; b < kB; ++b) {
        Vec row[kVectors];
        for (int v = 0; v < kVectors; ++v) row[v] = load(keys[b] + v * kWidth);
        prefetch_later<kPass * sizeof(Element)>(next[b]);
        keys[b] += kTile;
        next[b] += kTile * sizeof(Element);
        for (int r = 0; r < kM; ++r) {
          const Vec x = splat(q[r * a.head_dim + i]);
          for (int v = 0; v < kVectors; ++v) acc[b][r][v] = multiply_add<kFused>(x, row[v], acc[b][r][v]);
        }
      }
    for (int b = 0; b < kB; ++b)
      for (int v = 0; v < kVectors; ++v)
        for (int r = 0; r < kM; ++r)
          store(scores + r * kSpan + (first + b) * kTile + c + v * kWidth, acc[b][r][v] * a.scale);
  }
}

template <typename Element, bool kFused, int kM>
__attribute__((noinline)) void score_run(const SequenceAttention& a, const float* q, const BlockRun& run, int count,
                                         float* scores) {
  constexpr int kAtOnce = kBlocksAtOnce<kM>;
  int block = 0;
  for (; block + kAtOnce <= count; block += kAtOnce)
    score_sequences<Element, kFused, kM, kAtOnce>(a, q, run, block, scores);
  if constexpr (kAtOnce > 1)
    if (block < count)
      with_count<kAtOnce - 1>(count - block,
                              [&]<int kB>() { score_sequences<Element, kFused, kM, kB>(a, q, run, block, scores); });
}

// Adds probabilities · values of `count` positions from `first` of a run on to acc, for the rows of `scores`.
template <typename Element, bool kFused, int kM, int kV>
inline void add_run(Vec (&acc)[kM][kV], const SequenceAttention& a, const BlockRun& run, const float* scores, int count,
                    int column) {
  const std::size_t values_at = std::size_t(a.head_dim) * kTile;
  for (int first = 0; first < count; first += kTile) {
    const int block = first / kTile;
    const Prefetch prefetch{run.next(block) + (values_at + column) * sizeof(Element),
                            a.value_stride * int(sizeof(Element))};
    accumulate<kM, kV, kFused>(acc, scores + first, kSpan, run.keys<Element>(block) + values_at + column,
                               a.value_stride, count - first < kTile ? count - first : kTile, prefetch);
  }
}

// One row's part of a span, and the factor of its sums.
struct RowSpan {
  int seen = 0;
  float factor = 1;    // of the sums so far
  bool begun = false;  // whether there are sums
  bool last = false;
};

// Adds the positions of a span that all rows share to the sums of kM rows from `first` on.
template <typename Element, bool kFused, int kM>
__attribute__((noinline)) void mix_shared(const SequenceAttention& a, const BlockRun& run, const RowSpan* spans,
                                          int first, int count) {
  for (int column = 0; column < a.value_stride; column += kPass) {
    Vec acc[kM][kVectors] = {};
    float* sums = a.sums + first * a.value_stride + column;
    for (int r = 0; r < kM && spans[0].begun; ++r)
      for (int v = 0; v < kVectors; ++v)
        acc[r][v] = load(sums + r * a.value_stride + v * kWidth) * splat(spans[first + r].factor);
    add_run<Element, kFused, kM, kVectors>(acc, a, run, a.scores + first * kSpan, count, column);
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kVectors; ++v) store(sums + r * a.value_stride + v * kWidth, acc[r][v]);
  }
}

// Calls f<n>(first) for equal groups of n rows.
template <typename F>
inline void for_row_groups(int rows, F&& f) {
  const int groups = (rows + kTogether - 1) / kTogether;
  for (int g = 0; g < groups; ++g) {
    const Group group(rows, g, groups);
    with_count<kTogether>(group.count, [&]<int kM>() { f.template operator()<kM>(group.begin); });
  }
}

// Adds `count` positions of one row's own to kV vectors of its sums.
template <typename Element, bool kFused, int kV>
void mix_columns(const SequenceAttention& a, const BlockRun& run, int row, const RowSpan& span, int from, float norm,
                 int column) {
  float *sums = a.sums + row * a.value_stride + column, *out = a.rows[row].out + column;
  Vec acc[1][kV] = {};
  for (int v = 0; v < kV && span.begun; ++v) acc[0][v] = load(sums + v * kWidth) * splat(span.factor);
  add_run<Element, kFused, 1, kV>(acc, a, run, a.scores + row * kSpan + from, span.seen - from, column);
  for (int v = 0; v < kV; ++v) {
    const int room = a.head_dim - column - v * kWidth;
    if (!span.last) store(sums + v * kWidth, acc[0][v]);
    else store_some(out + v * kWidth, room, acc[0][v] * norm);
  }
}

template <typename Element, bool kFused>
__attribute__((noinline)) void mix_row(const SequenceAttention& a, const BlockRun& run, int row, const RowSpan& span,
                                       int from, float norm) {
  constexpr int kV = kValueVectors<1>;
  int column = 0;
  for (; column + kV * kWidth <= a.value_stride; column += kV * kWidth)
    mix_columns<Element, kFused, kV>(a, run, row, span, from, norm, column);
  for (; column < a.value_stride; column += kPass)
    mix_columns<Element, kFused, kVectors>(a, run, row, span, from, norm, column);
}

template <typename Element, bool kFused>
void attend_sequences(const SequenceAttention& a) {
  Softmax softmax[kRows];
  int end = 0;
  for (int r = 0; r < a.m; ++r) {
    end = a.rows[r].position + 1 > end ? a.rows[r].position + 1 : end;
    for (int i = 0; i < a.head_dim; ++i) a.queries[r * a.head_dim + i] = a.rows[r].q[i];
  }
  for (int first = 0; first < end; first += kSpan) {
    const int block = first / kTile, rest = a.shared - block;
    const int shared = rest < 0 ? 0 : rest < kSpan / kTile ? rest : kSpan / kTile, from = shared * kTile;
    const BlockRun common(a, 0, block);
    if (shared > 0)
      for_row_groups(a.m, [&]<int kM>(int row) {
        score_run<Element, kFused, kM>(a, a.queries + row * a.head_dim, common, shared, a.scores + row * kSpan);
      });
    RowSpan spans[kRows];
    for (int r = 0; r < a.m; ++r) {
      const int left = a.rows[r].position + 1 - first;
      if (left <= 0) continue;
      RowSpan& span = spans[r];
      span.seen = left < kSpan ? left : kSpan, span.last = left <= kSpan, span.begun = first > 0;
      const int blocks = (span.seen + kTile - 1) / kTile;
      float* scores = a.scores + r * kSpan;
      score_run<Element, kFused, 1>(a, a.rows[r].q, BlockRun(a, r, block + shared), blocks - shared, scores + from);
      span.factor = softmax[r].template add<kFused>(scores, span.seen, blocks * kTile);
    }
    if (shared > 0)
      for_row_groups(a.m, [&]<int kM>(int row) { mix_shared<Element, kFused, kM>(a, common, spans, row, from); });
    for (int r = 0; r < a.m; ++r) {
      RowSpan& span = spans[r];
      if (span.seen == 0) continue;
      if (shared > 0) span.begun = true, span.factor = 1;
      mix_row<Element, kFused>(a, BlockRun(a, r, block + shared), r, span, from, 1.0f / softmax[r].sum);
    }
  }
}

template <bool kFused>
void attend_some(const SequenceAttention& a) {
  with_element(a.format, [&]<typename Element>() { attend_sequences<Element, kFused>(a); });
}

void sequence_attention(const SequenceAttention& a) { a.fused ? attend_some<true>(a) : attend_some<false>(a); }

}  // namespace
}  // namespace gpt2lab
