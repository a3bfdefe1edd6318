// Products of int8 and int4 weights with inputs of 15 bits; included by kernels.inl only.
//
// A block of kBlock inputs of a row is rounded to whole numbers of 15 bits under one scale. The sum over a block is an
// exact integer of 32 bits, so it does not matter which instructions add it. Then come the scales: block by block,
// sum · (scale of the weights · scale of the inputs) is added, each operation rounded separately.
//
// CPUs that multiply bytes get an input x as two bytes, x = high · 128 + low; the others get 16-bit integers and widen
// the weights. All bytes lie in -127 … 127, but for weights that an instruction wants unsigned.
#pragma once

#include "kernels.h"
#include "products.inl"
#include "vector.inl"
#include "weight_block.h"

namespace gpt2lab {
namespace {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
constexpr bool kBytes = true;
#else
constexpr bool kBytes = false;
#endif

// Rows that are computed together, as the registers allow.
#if defined(__AVX512VNNI__)
constexpr int kIntegerRows = 6;
#elif defined(__AVX512F__)
constexpr int kIntegerRows = 8;
#elif defined(__AVXVNNI__)
constexpr int kIntegerRows = 2;
#elif defined(__AVX2__) || (defined(__ARM_NEON) && defined(__aarch64__))
constexpr int kIntegerRows = 3;
#else
constexpr int kIntegerRows = 1;
#endif

// What is added to a weight q before it is multiplied; ActivationBlock::offset undoes it.
template <Precision kP>
constexpr int kZeroPoint =
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    kP == Precision::int8 ? 128 : kZeroNibble;
#else
    kP == Precision::int8 ? 0 : kZeroNibble;
#endif

typedef int Int4 __attribute__((aligned(4), may_alias));

// Four inputs of a vector of outputs, as bytes in `first`, or as 16-bit integers: the even inputs and the odd ones.
struct Weights4 {
  IntVec first, second;
};

// Loads the inputs of a step; of int4, those in the bytes' low or high halves.
template <Precision kP, bool kHigh>
inline Weights4 weights(const char* p) {
  const IntVec w = load_ints(p);
  if constexpr (kBytes) {
    if constexpr (kP == Precision::int8) return {kZeroPoint<kP> ? w ^ splat_int(int(0x80808080)) : w, w};
    else return {(kHigh ? w >> 4 : w) & splat_int(0x0f0f0f0f), w};
  } else if constexpr (kP == Precision::int8) {
    return {(IntVec)(((Shorts)w << 8) >> 8), (IntVec)((Shorts)w >> 8)};
  } else {
    const IntVec mask = splat_int(0x000f000f);
    return {(kHigh ? w >> 4 : w) & mask, (kHigh ? w >> 12 : w >> 8) & mask};
  }
}

// Adds the products of the pairs of 16-bit integers a[i] and b[i] to acc[i].
inline IntVec add_pairs(IntVec acc, IntVec a, IntVec b) {
#if defined(__AVX512F__)
  return acc + (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return acc + (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
  return acc + (IntVec)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#elif defined(__SSE2__)
  return acc + (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__wasm_simd128__)
  return acc + (IntVec)wasm_i32x4_dot_i16x8((v128_t)a, (v128_t)b);
#else
  return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// Adds the products of the four bytes of w[i] and x[i] to acc[i]. Instructions that want w unsigned get it unsigned.
inline IntVec add_bytes(IntVec acc, IntVec w, IntVec x) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
#elif defined(__AVXVNNI__)
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, (__m256i)x);
#elif defined(__ARM_FEATURE_DOTPROD)
  return (IntVec)vdotq_s32((int32x4_t)acc, (int8x16_t)w, (int8x16_t)x);
#else
  static_assert(!kBytes);
  return (void)w, (void)x, acc;
#endif
}

// The integer sums of kM rows and kV vectors of outputs. With bytes, a sum is high · 128 + low.
template <int kM, int kV>
struct Sums {
  IntVec low[kM][kV], high[kM][kV];

  // Begins with the offsets of rows `slot` … of their group.
  void begin(const ActivationBlock& a, int slot, int group) {
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) {
        low[r][v] = splat_int(a.offset[slot + r][group]);
        high[r][v] = IntVec{};
      }
  }

  // Adds inputs 4 · quad … of the block.
  void add(const Weights4 (&w)[kV], const ActivationBlock& a, int slot, int quad) {
    for (int r = 0; r < kM; ++r)
      if constexpr (kBytes) {
        const IntVec x = splat_int(reinterpret_cast<const Int4*>(a.bytes.high[slot + r])[quad]);
        for (int v = 0; v < kV; ++v) high[r][v] = add_bytes(high[r][v], w[v].first, x);
        const IntVec y = splat_int(reinterpret_cast<const Int4*>(a.bytes.low[slot + r])[quad]);
        for (int v = 0; v < kV; ++v) low[r][v] = add_bytes(low[r][v], w[v].first, y);
      } else {
        const auto* pairs = reinterpret_cast<const Int4*>(a.shorts[slot + r]) + 2 * quad;
        const IntVec even = splat_int(pairs[0]), odd = splat_int(pairs[1]);
        for (int v = 0; v < kV; ++v) low[r][v] = add_pairs(low[r][v], w[v].first, even);
        for (int v = 0; v < kV; ++v) low[r][v] = add_pairs(low[r][v], w[v].second, odd);
      }
  }

  IntVec sum(int r, int v) const { return kBytes ? low[r][v] + (high[r][v] << 7) : low[r][v]; }
};

// Adds a step, which lies at p for the first of the outputs and begins with input 4 · quad.
template <Precision kP, bool kHigh, int kM, int kV>
inline void add_step(Sums<kM, kV>& sums, const ActivationBlock& a, int slot, int quad, const char* p) {
  Weights4 w[kV];
  for (int v = 0; v < kV; ++v) w[v] = weights<kP, kHigh>(p + v * kWidth * 4);
  sums.add(w, a, slot, quad);
}

// Computes the sums of a block of `depth` inputs, whose weights for the first of the outputs lie at b.
template <Precision kP, int kM, int kV>
inline void sum_block(IntVec (&out)[kM][kV], const ActivationBlock& a, int slot, const char* b, int depth,
                      const char* factors, Prefetch& prefetch) {
  constexpr int kStep = WeightBlock<kP>::kStep;
  Sums<kM, kV> sums;
  if constexpr (kP == Precision::int8) {
    sums.begin(a, slot, 0);
    for (int quad = 0; quad < depth / 4; ++quad, b += kStep) {
      prefetch.advance();
      add_step<kP, false>(sums, a, slot, quad, b);
    }
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) out[r][v] = sums.sum(r, v);
  } else {
    constexpr int kHalf = kGroupInputs / 8;  // quads of half a group
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) out[r][v] = IntVec{};
    for (int group = 0; group < depth / kGroupInputs; ++group, factors += kTile) {
      sums.begin(a, slot, group);
      for (int quad = 0; quad < kHalf; ++quad, b += kStep) {
        prefetch.advance();
        add_step<kP, false>(sums, a, slot, group * 2 * kHalf + quad, b);
        add_step<kP, true>(sums, a, slot, (group * 2 + 1) * kHalf + quad, b);
      }
      for (int v = 0; v < kV; ++v) {
        const IntVec factor = load_bytes(factors + v * kWidth);
        for (int r = 0; r < kM; ++r) out[r][v] += sums.sum(r, v) * factor;
      }
    }
  }
}

// Adds a block's sums with their scales: each operation is rounded separately.
inline Vec add_scaled(Vec y, IntVec sum, Vec weight_scale, float input_scale) {
  return y + __builtin_convertvector(sum, Vec) * (weight_scale * splat(input_scale));
}

// Computes kM rows of one group by kV vectors of columns, over all blocks of k.
template <Precision kP, int kM, int kV>
void integer_rows(const Product& p, int row, int column, Prefetch prefetch) {
  using Block = WeightBlock<kP>;
  const int blocks = block_count(p.k), slot = row % kRowGroup, in_tile = column % kTile;
  const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(row / kRowGroup) * blocks;
  const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(column / kTile) * Block::tile_bytes(p.k);
  Vec acc[kM][kV];
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) acc[r][v] = p.bias ? load(p.bias + column + v * kWidth) : Vec{};
  for (int i = 0; i < blocks; ++i, ++a, b += Block::kWhole) {
    const int depth = block_depth(p.k, i);
    IntVec sums[kM][kV];
    sum_block<kP>(sums, *a, slot, b + in_tile * 4, depth, b + Block::factors_at(depth) + in_tile, prefetch);
    const auto* scales = reinterpret_cast<const float*>(b + Block::scales_at(depth)) + in_tile;
    for (int v = 0; v < kV; ++v)
      for (int r = 0; r < kM; ++r)
        acc[r][v] = add_scaled(acc[r][v], sums[r][v], load(scales + v * kWidth), a->scale[slot + r]);
    for (int at = Block::factors_at(depth); at < Block::bytes(depth); at += Block::kStep) prefetch.advance();
  }
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) finish(p, row + r, column + v * kWidth, acc[r][v]);
}

// Stores a vector of a row's inputs, from number `at` of its block on.
inline void store_inputs(ActivationBlock& out, int slot, int at, IntVec x) {
  if constexpr (kBytes) {
    const IntVec high = (x + 64) >> 7;
    store_bytes(out.bytes.high[slot] + at, high);
    store_bytes(out.bytes.low[slot] + at, x - (high << 7));
  } else {
    store_shorts(out.shorts[slot] + at, middle_swapped(x));  // of every four, the even ones and then the odd ones
  }
}

// Rounds a block of a row: `depth` numbers, a multiple of kPadding. The largest becomes ±kLargestInput.
template <Precision kP>
void round_block(const float* x, int depth, ActivationBlock& out, int slot) {
  constexpr float kTiny = 1e-30f;        // blocks smaller than this are zero: the inverse of their scale would overflow
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number, ties to even
  // Compare magnitudes by their bits, so that NaN and infinity win and reach the scale.
  IntVec top = {};
  for (int i = 0; i < depth; i += kWidth) {
    const IntVec magnitude = (IntVec)load(x + i) & splat_int(0x7fffffff);
    top = magnitude > top ? magnitude : top;
  }
  const float largest = __builtin_bit_cast(float, largest_lane(top));
  const bool zero = !(largest >= kTiny && largest < __builtin_inff());  // only the scale reports NaN and infinity
  const Vec inverse = splat(zero ? 0.0f : kLargestInput / largest);
  int whole = 0;
  for (int group = 0; group < depth / kGroupInputs; ++group) {
    IntVec total = {};
    for (int at = group * kGroupInputs; at < (group + 1) * kGroupInputs; at += kWidth) {
      const IntVec q = zero ? IntVec{} : (IntVec)(load(x + at) * inverse + kRound) - (IntVec)splat(kRound);
      total += q;
      store_inputs(out, slot, at, q);
    }
    const int sum = sum_lanes(total);
    whole += sum;
    if (kP == Precision::int4) out.offset[slot][group] = -kZeroPoint<kP> * sum;
  }
  if (kP == Precision::int8) out.offset[slot][0] = -kZeroPoint<kP> * whole;
  out.scale[slot] = largest < kTiny ? 0.0f : largest / kLargestInput;
}

// Rounds row `row` of a matrix of inputs; out is the first block of its group.
template <Precision kP>
void round_row(const float* x, int k, int row, ActivationBlock* out) {
  for (int block = 0; block < block_count(k); ++block, ++out) {
    const int begin = block * kBlock, depth = block_depth(k, block);
    float padded[kBlock] = {};
    const float* numbers = x + begin;
    if (begin + depth > k) {
      __builtin_memcpy(padded, numbers, (k - begin) * sizeof(float));
      numbers = padded;
    }
    round_block<kP>(numbers, depth, *out, row % kRowGroup);
  }
}

}  // namespace
}  // namespace gpt2lab

#if defined(__AMX_INT8__)
#include "matrix_integers.inl"
#endif

namespace gpt2lab {
namespace {

template <Precision kP>
void integer_product(const Product& p, int first_tile, int last_tile) {
  constexpr int kStep = WeightBlock<kP>::kStep, kPasses = kTile / kPass;
  const std::size_t size = WeightBlock<kP>::tile_bytes(p.k);
  const auto* bytes = reinterpret_cast<const char*>(p.b);
  if (p.m == 1) {  // a whole tile at once, in the order it lies in memory
    for (int t = first_tile; t < last_tile; ++t)
      integer_rows<kP, 1, kTile / kWidth>(p, 0, t * kTile, {bytes + t * size + kAhead, kStep});
    return;
  }
#if defined(__AMX_INT8__)
  if (p.m >= kMatrixUnitRows<kP>) return matrix_unit_product<kP>(p, first_tile, last_tile);
#endif
  // While a tile is in the cache, each pass over it prefetches its share of the next one.
  const int row_groups = (p.m + kRowGroup - 1) / kRowGroup;
  for (int t = first_tile; t < last_tile; ++t) {
    const char* next = bytes + (t + 1) * size;
    for (int first = 0; first < p.m; first += kRowGroup) {
      const int rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
      const int groups = (rows + kIntegerRows - 1) / kIntegerRows, shares = row_groups * groups * kPasses;
      const int step = shares < kStep ? kStep / shares : 1;
      for (int column = t * kTile; column < (t + 1) * kTile; column += kPass)
        for (int g = 0; g < groups; ++g) {
          const Group group(rows, g, groups);
          with_count<kIntegerRows>(group.count, [&]<int kM>() {
            integer_rows<kP, kM, kVectors>(p, first + group.begin, column, {next, step});
          });
          next += size / kStep * step;
        }
    }
  }
}

}  // namespace
}  // namespace gpt2lab
