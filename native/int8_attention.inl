// Attention over keys and values of int8; included by kernels.inl only.
//
// A query is rounded like the inputs of a product. So are the probabilities of a span of kSpan positions, each
// multiplied by its value's scale. Scores and mixed values are then sums of whole numbers, which are exact: it does not
// matter which instructions add them, or which rows are computed together. A position that a row does not see has
// probability zero, so its value, which may be anything, adds nothing.
#pragma once

#include "integers.inl"
#include "packed_attention.inl"

namespace gpt2lab {
namespace {

static_assert(kSpan == kBlock);  // the probabilities of a span are one block of inputs

template <int kM, int kV>
using Int8Sums = Sums<Precision::int8, kM, kV>;

// A call, and the layout of its scratch memory, for up to kRowGroup rows.
struct Int8Rows {
  const PackedAttention& a;
  PackedBlock block;
  ActivationBlock *queries, *probabilities;  // for every kBlock numbers of a query; for a span
  float *scores, *sums;                      // [row][kSpan], and [row][stride]
  std::int32_t* whole;                       // of a span, [row][stride]

  explicit Int8Rows(const PackedAttention& call) : a(call), block(call.head_dim, 1) {
    queries = reinterpret_cast<ActivationBlock*>(a.scratch);
    probabilities = queries + block_count(a.head_dim);
    scores = reinterpret_cast<float*>(probabilities + 1);
    sums = scores + kRowGroup * kSpan;
    whole = reinterpret_cast<std::int32_t*>(sums + kRowGroup * block.stride);
  }
  static std::size_t bytes(int head_dim) {
    const std::size_t numbers = kRowGroup * (kSpan + 2 * rounded_up(head_dim, kTile));
    return (block_count(head_dim) + 1) * sizeof(ActivationBlock) + numbers * sizeof(float);
  }
  int query_depth(int number) const {
    const int rest = block.stride - number * kBlock;
    return rest < kBlock ? rest : kBlock;
  }
};

// Adds a step of probabilities, which are not negative: so they, and not the values, are what may have to be unsigned.
template <int kM, int kV>
inline void add_values(Int8Sums<kM, kV>& sums, const char* x, const char* p) {
  if constexpr (kBytes<Precision::int8>) {
    IntVec values[kV];
    for (int v = 0; v < kV; ++v) values[v] = load_ints(p + v * kWidth * 4);
    for (int r = 0; r < kM; ++r) {
      const IntVec high = high_bytes(x, r), low = low_bytes(x, r);
      for (int v = 0; v < kV; ++v) sums.high[r][v] = add_bytes(sums.high[r][v], high, values[v]);
      for (int v = 0; v < kV; ++v) sums.low[r][v] = add_bytes(sums.low[r][v], low, values[v]);
    }
  } else {
    add_step<Precision::int8, false>(sums, x, p);
  }
}

// Adds `count` inputs from number `first` on, multiples of kGroupInputs, to the sums. Every four of them have a step of
// `distance` bytes from p on. The same part of the memory at `next` is prefetched to the second-level cache.
template <bool kValues, int kM, int kV>
inline void add_inputs(Int8Sums<kM, kV>& sums, const ActivationBlock& a, int slot, int first, int count, const char* p,
                       const char* next, int distance) {
  for (int at = first; at < first + count; at += kGroupInputs) {
    const char* x = inputs<Precision::int8>(a, slot, at);
    for (int quad = 0; quad < kGroupInputs / 4; ++quad, p += distance, next += distance) {
      for (int line = 0; line < kV * kWidth * 4; line += kLine) __builtin_prefetch(next + line, 0, 2);
      keep_pointer(x);
      if (kValues) add_values(sums, x, p);
      else add_step<Precision::int8, false>(sums, x, p);
      x += kQuad<Precision::int8>;
    }
  }
}

// Stores the scores of a vector of positions, or adds them to those of the numbers before.
inline void store_scores(float* scores, IntVec sums, Vec key_scales, float query_scale, bool adds) {
  const Vec y = __builtin_convertvector(sums, Vec) * (key_scales * splat(query_scale));
  store(scores, adds ? load(scores) + y : y);
}

// Computes the scores of kM rows from `row` on for a block of positions.
template <int kM>
void score_rows(const Int8Rows& rows, int row, const char* block, const char* next, float* scores) {
  const auto* scales = reinterpret_cast<const float*>(block + rows.block.scales_at());
  for (int number = 0; number < block_count(rows.a.head_dim); ++number)
    for (int column = 0; column < kTile; column += kPass) {
      const ActivationBlock& queries = rows.queries[number];
      const std::size_t at = std::size_t(number) * kBlock * kTile + column * 4;
      Int8Sums<kM, kVectors> sums;
      sums.begin(queries, row, -1);
      add_inputs<false>(sums, queries, row, 0, rows.query_depth(number), block + at, next + at, PackedBlock::kKeyStep);
      for (int v = 0; v < kVectors; ++v)
        for (int r = 0; r < kM; ++r)
          store_scores(scores + r * kSpan + column + v * kWidth, sums.sum(r, v), load(scales + column + v * kWidth),
                       queries.scale[row + r], number > 0);
    }
}

// Adds the values of some blocks of a span to the whole sums of kM rows and kV vectors; begins with zero unless
// `begun`.
template <int kM, int kV>
void mix_columns(const Int8Rows& rows, int row, const PackedRun& run, int first, int last, bool begun, int column) {
  std::int32_t* whole = rows.whole + row * rows.block.stride + column;
  const std::size_t at = rows.block.values_at() + column * 4;
  Int8Sums<kM, kV> sums{};
  for (int r = 0; r < kM && begun; ++r)
    for (int v = 0; v < kV; ++v) sums.low[r][v] = load_ints(whole + r * rows.block.stride + v * kWidth);
  for (int b = first; b < last; ++b)
    add_inputs<true>(sums, *rows.probabilities, row, b * kTile, kTile, run.at(b) + at, run.next(b) + at,
                     rows.block.value_step());
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) store_ints(whole + r * rows.block.stride + v * kWidth, sums.sum(r, v));
}

template <int kM>
void mix_rows(const Int8Rows& rows, int row, const PackedRun& run, int first, int last, bool begun) {
  constexpr int kV = kM == 1 ? kTile / kWidth * (kWidth == 16 ? 2 : 1) : kVectors;
  int column = 0;
  for (; column + kV * kWidth <= rows.block.stride; column += kV * kWidth)
    mix_columns<kM, kV>(rows, row, run, first, last, begun, column);
  for (; column < rows.block.stride; column += kPass)
    mix_columns<kM, kVectors>(rows, row, run, first, last, begun, column);
}

// Calls f<n>(first) for equal groups of n rows.
template <typename F>
inline void for_integer_rows(int m, F&& f) {
  constexpr int kMost = kIntegerRows<Precision::int8>;
  const int groups = (m + kMost - 1) / kMost;
  for (int g = 0; g < groups; ++g) {
    const Group group(m, g, groups);
    with_count<kMost>(group.count, [&]<int kM>() { f.template operator()<kM>(group.begin); });
  }
}

// Turns the scores of a row into rounded probabilities. The scales of values that it does not see may be anything.
void weigh(const Int8Rows& rows, int row, const PackedRun& run, Softmax& softmax, PackedSpan& span) {
  float* p = rows.scores + row * kSpan;
  const int padded = span.blocks * kTile;
  Largest largest;
  span.factor = softmax.add<false>(p, span.seen, padded, [&](int i, Vec e) {
    const auto* scales = reinterpret_cast<const float*>(run.at(i / kTile) + rows.block.scales_at()) + kTile;
    Vec x = e * load(scales + i % kTile);
    if (i + kWidth > span.seen) x = first_lanes(span.seen - i, x, Vec{});
    largest.add(x);
    store(p + i, x);
  });
  const InputScale rounding(largest);
#if defined(__AVX512VNNI__)
  for (int i = 0; i < padded; i += kPadding) {  // if `padded` ends within this part, nothing reads the rest
    IntVec q[4];
    for (int v = 0; v < 4; ++v) q[v] = rounding.round(load(p + i + v * kWidth));
    SplitInputs(q).store<true>(*rows.probabilities, row, i);
  }
#else
  for (int i = 0; i < padded; i += kWidth)
    store_inputs<Precision::int8, true>(*rows.probabilities, row, i, rounding.round(load(p + i)));
#endif
  rows.probabilities->scale[row] = rounding.scale;
}

}  // namespace
}  // namespace gpt2lab

#if defined(__AMX_INT8__)
#include "matrix_attention.inl"
#endif

namespace gpt2lab {
namespace {

// Computes the scores of all rows for the first `count` blocks of a span.
void score_shared(const Int8Rows& rows, const PackedRun& run, int count) {
#if defined(__AMX_INT8__)
  if (rows.a.m >= kMatrixUnitRows<Precision::int8>) return score_tiles(rows, run, count);
#endif
  for (int b = 0; b < count; ++b)
    for_integer_rows(rows.a.m, [&]<int kM>(int row) {
      score_rows<kM>(rows, row, run.at(b), run.next(b), rows.scores + row * kSpan + b * kTile);
    });
}

// Computes the whole sums of all rows for the first `count` blocks of a span.
void mix_shared(const Int8Rows& rows, const PackedRun& run, int count) {
#if defined(__AMX_INT8__)
  if (rows.a.m >= kMatrixUnitRows<Precision::int8>) return mix_tiles(rows, run, count);
#endif
  for_integer_rows(rows.a.m, [&]<int kM>(int row) { mix_rows<kM>(rows, row, run, 0, count, false); });
}

void round_query(const Int8Rows& rows, int row) {
  round_row<Precision::int8>(rows.a.rows[row].q, rows.a.head_dim, row, rows.queries);
  for (int number = 0; number < block_count(rows.a.head_dim); ++number) rows.queries[number].scale[row] *= rows.a.scale;
}

void score_own(const Int8Rows& rows, int row, const PackedRun& run, int first, int last) {
  for (int b = first; b < last; ++b)
    score_rows<1>(rows, row, run.at(b), run.next(b), rows.scores + row * kSpan + b * kTile);
}

void mix_own(const Int8Rows& rows, int row, const PackedRun& run, int first, int last, bool begun) {
  mix_rows<1>(rows, row, run, first, last, begun);
}

void finish(const Int8Rows& rows, int row, const PackedSpan& span, bool begins, bool ends, float norm) {
  const int stride = rows.block.stride;
  const std::int32_t* whole = rows.whole + row * stride;
  const Vec scale = splat(rows.probabilities->scale[row]);
  add_span(rows.a, row, stride, rows.sums + row * stride, span, begins, ends, norm,
           [&](int column) { return __builtin_convertvector(load_ints(whole + column), Vec) * scale; });
}

// Stores n numbers, kTogether side by side and then `distance` apart; `rounded(i)` returns a vector of them from i on.
template <int kTogether, typename F>
inline void scatter(int n, std::size_t distance, Int8* out, F&& rounded) {
  for (int i = 0; i < n; i += kWidth) {
    std::int8_t whole[kWidth];
    store_bytes(whole, rounded(i));
    if (i + kWidth <= n) {
#pragma GCC unroll 16
      for (int j = 0; j < kWidth; j += kTogether, out += distance) __builtin_memcpy(out, whole + j, kTogether);
    } else {
      for (int j = 0; i + j < n; ++j) out[j / kTogether * distance + j % kTogether].value = whole[j];
    }
  }
}

// A row of keys or values, and how it is rounded.
struct Int8Rounding {
  const float* x;
  int n;
  float scale, inverse;
  bool zero;

  Int8Rounding(const float* row, int count) : x(row), n(count) {
    constexpr float kTiny = 1e-30f;  // smaller numbers are zero: the inverse of their scale would overflow
    constexpr int kLargest = 127;
    // Magnitudes are compared by their bits, so that NaN and infinity win and reach the scale.
    int top = 0;
    for (int i = 0; i < n; ++i) {
      const int magnitude = __builtin_bit_cast(int, x[i]) & 0x7fffffff;
      top = magnitude > top ? magnitude : top;
    }
    const float largest = __builtin_bit_cast(float, top);
    zero = !(largest >= kTiny && largest < __builtin_inff());
    inverse = zero ? 0.0f : float(kLargest) / largest;
    scale = largest < kTiny ? 0.0f : largest / float(kLargest);
  }

  // Returns a vector of whole numbers from number i on, with zeros behind the last one.
  IntVec operator()(int i) const {
    if (zero) return IntVec{};
    float some[kWidth] = {};
    if (i + kWidth > n) __builtin_memcpy(some, x + i, (n - i) * sizeof(float));
    const Vec numbers = load(i + kWidth > n ? some : x + i);
    return (IntVec)(numbers * splat(inverse) + splat(kRound)) - (IntVec)splat(kRound);
  }
};

float to_int8(const float* x, int n, int together, std::size_t distance, Int8* out) {
  const Int8Rounding rounded(x, n);
  if (together == 4) scatter<4>(n, distance, out, rounded);
  else scatter<1>(n, distance, out, rounded);
  return rounded.scale;
}

void four_to_int8(const float* x, std::size_t row, int n, Int8* out, float* scales) {
  const Int8Rounding rounded[] = {{x, n}, {x + row, n}, {x + 2 * row, n}, {x + 3 * row, n}};
  for (int r = 0; r < 4; ++r) scales[r] = rounded[r].scale;
  for (int i = 0; i < n; i += kWidth) {
    const IntVec low = splat_int(0xff);
    store_ints(out + 4 * i,
               (rounded[0](i) & low) | (rounded[1](i) & low) << 8 | (rounded[2](i) & low) << 16 | rounded[3](i) << 24);
  }
  for (int i = rounded_up(n, kWidth); i < rounded_up(n, kTile); i += kWidth) store_ints(out + 4 * i, IntVec{});
}

}  // namespace
}  // namespace gpt2lab
