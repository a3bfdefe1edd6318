// Attention over packed keys and values of bfloat16 on the CPU's matrix unit (AMX); kernels.inl includes this file when
// it is compiled for one.
//
// Queries, times the scale of scores, and probabilities are rounded to bfloat16. The same instructions compute the
// chains of one row and of many. Stored values are finite (see kv_cache.cpp), so those that a row does not see add
// nothing: their probabilities are zero.
#pragma once

#include "matrix_integers.inl"
#include "packed_attention.inl"

namespace gpt2lab {
namespace {

// The shapes of tiles for m rows: 0 and 1 hold the rows' inputs, 2 and 3 keys or values, 4 to 7 sums.
struct RowShapes : TileShapes {
  explicit constexpr RowShapes(int m) {
    for (const int tile : {0, 1, 4, 5, 6, 7}) rows[tile] = std::uint8_t(m);
  }
};

// Calls f() with tiles for one row, or for a group of them.
template <typename F>
inline void with_tiles(int m, F&& f) {
  static constexpr RowShapes one(1), all(kRowGroup);  // not on the stack: gcc 12 may drop the stores
  _tile_loadconfig(m == 1 ? &one : &all);
  asm volatile("" ::: "memory");  // the compiler does not know that loads and stores of tiles use memory
  f();
  asm volatile("" ::: "memory");
  _tile_release();
}

// A call, and the layout of its scratch memory; every array has kRowGroup rows.
struct BFloat16Rows {
  const PackedAttention& a;
  PackedBlock block;
  BFloat16Block *queries, *probabilities;  // for every kBFloat16Inputs numbers of a query; positions of a span
  float *scores, *mixed, *sums;            // [row][kSpan]; [row][stride] of a span, and so far

  explicit BFloat16Rows(const PackedAttention& call) : a(call), block(call.head_dim, sizeof(BFloat16)) {
    queries = reinterpret_cast<BFloat16Block*>(a.scratch);
    probabilities = queries + bfloat16_blocks(a.head_dim);
    scores = reinterpret_cast<float*>(probabilities + bfloat16_blocks(kSpan));
    mixed = scores + kRowGroup * kSpan;
    sums = mixed + kRowGroup * block.stride;
  }
  static std::size_t bytes(int head_dim) {
    const int numbers = kRowGroup * (kSpan + 2 * rounded_up(head_dim, kTile));
    return (bfloat16_blocks(head_dim) + bfloat16_blocks(kSpan)) * sizeof(BFloat16Block) + numbers * sizeof(float);
  }
};

inline __m256i rounded_to_bfloat16(Vec x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }

// Returns a mask of the first `count` lanes of a vector: all if `count` is larger, none if it is negative.
inline __mmask16 first_lanes(int count) {
  return __mmask16(count >= kWidth ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

void round_query(const BFloat16Rows& rows, int row) {
  const float* q = rows.a.rows[row].q;
  const Vec scale = splat(rows.a.scale);
  for (int i = 0; i < rows.block.stride; i += kWidth) {
    const Vec x = (Vec)_mm512_maskz_loadu_ps(first_lanes(rows.a.head_dim - i), q + i) * scale;
    BFloat16* out = rows.queries[i / kBFloat16Inputs].x[row] + i % kBFloat16Inputs;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), rounded_to_bfloat16(x));
  }
}

// Computes the scores of rows from `row` on for blocks first … last of a span.
inline void score_blocks(const BFloat16Rows& rows, int row, const PackedRun& run, int first, int last) {
  const int parts = bfloat16_blocks(rows.a.head_dim);
  for (int b = first; b < last; ++b) {
    const char* keys = run.at(b);
    _tile_zero(4);
    _tile_zero(5);
    for (int part = 0; part < parts; ++part, keys += kBFloat16Inputs / 2 * PackedBlock::kKeyStep) {
      _tile_loadd(0, rows.queries[part].x[row], 64);
      _tile_loadd(2, keys, PackedBlock::kKeyStep);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, keys + 64, PackedBlock::kKeyStep);
      _tile_dpbf16ps(5, 0, 3);
    }
    float* scores = rows.scores + row * kSpan + b * kTile;
    _tile_stored(4, scores, kSpan * sizeof(float));
    _tile_stored(5, scores + kHalfTile, kSpan * sizeof(float));
  }
}

// Adds the values of blocks first … last of a span, times probabilities, to the sums of kTiles · kHalfTile columns of
// rows from `row` on; begins with zero unless `begun`.
template <int kTiles>
inline void mix_columns(const BFloat16Rows& rows, int row, const PackedRun& run, int first, int last, bool begun,
                        int column) {
  const int stride = rows.block.stride, step = rows.block.value_step();
  float* mixed = rows.mixed + row * stride + column;
  const std::size_t bytes = stride * sizeof(float);
  _tile_zero(4);
  _tile_zero(5);
  if (kTiles > 2) {
    _tile_zero(6);
    _tile_zero(7);
  }
  if (begun) {
    _tile_loadd(4, mixed, bytes);
    _tile_loadd(5, mixed + 16, bytes);
    if (kTiles > 2) {
      _tile_loadd(6, mixed + 32, bytes);
      _tile_loadd(7, mixed + 48, bytes);
    }
  }
  for (int b = first; b < last; ++b) {
    const char* values = run.at(b) + rows.block.values_at() + column * 4;
    _tile_loadd(0, rows.probabilities[b].x[row], 64);
    _tile_loadd(2, values, step);
    _tile_dpbf16ps(4, 0, 2);
    _tile_loadd(3, values + 64, step);
    _tile_dpbf16ps(5, 0, 3);
    if (kTiles > 2) {
      _tile_loadd(2, values + 128, step);
      _tile_dpbf16ps(6, 0, 2);
      _tile_loadd(3, values + 192, step);
      _tile_dpbf16ps(7, 0, 3);
    }
  }
  _tile_stored(4, mixed, bytes);
  _tile_stored(5, mixed + 16, bytes);
  if (kTiles > 2) {
    _tile_stored(6, mixed + 32, bytes);
    _tile_stored(7, mixed + 48, bytes);
  }
}

inline void mix_blocks(const BFloat16Rows& rows, int row, const PackedRun& run, int first, int last, bool begun) {
  int column = 0;
  for (; column + 2 * kTile <= rows.block.stride; column += 2 * kTile)
    mix_columns<4>(rows, row, run, first, last, begun, column);
  if (column < rows.block.stride) mix_columns<2>(rows, row, run, first, last, begun, column);
}

void score_shared(const BFloat16Rows& rows, const PackedRun& run, int count) {
  with_tiles(kRowGroup, [&] { score_blocks(rows, 0, run, 0, count); });
}

// Also prefetches what is read next: a single row's keys and values come from memory.
void score_own(const BFloat16Rows& rows, int row, const PackedRun& run, int first, int last) {
  with_tiles(1, [&] {
    for (int b = first; b < last; ++b) {
      for (std::size_t at = 0; at < 2 * rows.block.values_at(); at += kLine) __builtin_prefetch(run.next(b) + at, 0, 2);
      score_blocks(rows, row, run, b, b + 1);
    }
  });
}

void weigh(const BFloat16Rows& rows, int row, const PackedRun&, Softmax& softmax, PackedSpan& span) {
  span.factor = softmax.add<true>(rows.scores + row * kSpan, span.seen, span.blocks * kTile, [&](int i, Vec e) {
    BFloat16* out = rows.probabilities[i / kBFloat16Inputs].x[row] + i % kBFloat16Inputs;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), rounded_to_bfloat16(e));
  });
}

void mix_shared(const BFloat16Rows& rows, const PackedRun& run, int count) {
  with_tiles(kRowGroup, [&] { mix_blocks(rows, 0, run, 0, count, false); });
}

void mix_own(const BFloat16Rows& rows, int row, const PackedRun& run, int first, int last, bool begun) {
  with_tiles(1, [&] { mix_blocks(rows, row, run, first, last, begun); });
}

void finish(const BFloat16Rows& rows, int row, const PackedSpan& span, bool begins, bool ends, float norm) {
  const int stride = rows.block.stride;
  const float* mixed = rows.mixed + row * stride;
  add_span(rows.a, row, stride, rows.sums + row * stride, span, begins, ends, norm,
           [&](int column) { return load(mixed + column); });
}

bool pack_bfloat16(const float* x, int n, int together, std::size_t distance, BFloat16* out) {
  const __m512i infinity = _mm512_set1_epi16(0x7f80);
  auto* place = reinterpret_cast<char*>(out);
  __mmask32 bad = 0;
  for (int i = 0; i < n; i += 2 * kWidth) {
    const int rest = n - i < 2 * kWidth ? n - i : 2 * kWidth;
    const __m512 low = _mm512_maskz_loadu_ps(first_lanes(rest), x + i);
    const __m512 high = _mm512_maskz_loadu_ps(first_lanes(rest - kWidth), x + i + kWidth);
    const auto rounded = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(rounded, infinity), infinity);
    if (together == 2) {
      alignas(64) std::uint16_t numbers[2 * kWidth];
      _mm512_store_si512(numbers, rounded);
      for (int j = 0; j + 2 <= rest; j += 2, place += distance) __builtin_memcpy(place, numbers + j, 4);
      if (rest % 2 != 0) __builtin_memcpy(place, numbers + rest - 1, 2);
    } else {  // every second place of 16 bits; those between belong to the other position of the pair
      const auto half = [&](__m256i some, int count) {
        const __mmask32 own = 0x55555555 & (count >= kWidth ? ~0u : (1u << 2 * count) - 1);
        _mm512_mask_storeu_epi16(place, own, _mm512_cvtepu16_epi32(some));
        place += kWidth * 4;
      };
      half(_mm512_castsi512_si256(rounded), rest);
      if (rest > kWidth) half(_mm512_extracti64x4_epi64(rounded, 1), rest - kWidth);
    }
  }
  return bad == 0;
}

}  // namespace
}  // namespace gpt2lab
