// Products of int8 and int4 weights with inputs of 15 bits; included by kernels.inl only.
//
// A block of kBlock inputs of a row is rounded to whole numbers of 15 bits under one scale. The sum over a block is an
// exact integer of 32 bits, so it does not matter which instructions add it. Then come the scales: block by block,
// sum · (scale of the weights · scale of the inputs) is added, each operation rounded separately.
#pragma once

#include <cstddef>

#include "activation_block.inl"
#include "kernels.h"
#include "products.inl"
#include "vector.inl"
#include "weight_block.h"

namespace gpt2lab {
namespace {

// Rows that are computed together, as the registers allow.
template <Precision kP>
constexpr int kIntegerRows =
#if defined(__AVX512VNNI__)
    6;
#elif defined(__AVX512F__)
    kShortSums<kP> ? 5 : 8;
#elif defined(__AVXVNNI__)
    2;
#elif defined(__AVX2__)
    kShortSums<kP> ? 2 : 3;
#elif defined(__ARM_NEON) && defined(__aarch64__)
    3;
#else
    1;
#endif

typedef int Int4 __attribute__((aligned(4), may_alias));

// Four inputs of a vector of outputs, as bytes in `first`, or as 16-bit integers: the even inputs and the odd ones.
struct Weights4 {
  IntVec first, second;
};

inline IntVec made_unsigned(IntVec bytes) { return bytes ^ splat_int(int(0x80808080)); }

// Whether instructions want int8 weights unsigned, as q + 128.
constexpr bool kWantsUnsigned = kZeroPoint<Precision::int8> != 0;

#if defined(__AVX512VNNI__)
constexpr bool kCopiesInt8 = true;
#else
constexpr bool kCopiesInt8 = false;
#endif

// From this number of rows on, a block's weights are made ready once for all rows: int4 is unpacked. Making int8
// unsigned saves an exclusive-or in every step, which pays only with AVX-512.
template <Precision kP>
constexpr int kReadyRows = kP == Precision::int4 ? 9
                           : kCopiesInt8         ? 48
                                                 : kMaxRows + 1;

// Loads the weights of a step; of int4, those in the low or high halves of the bytes. `kUnsigned`: int8 weights have
// been made unsigned.
template <Precision kP, bool kHigh, bool kUnsigned = false>
inline Weights4 weights(const char* p) {
  const IntVec w = load_ints(p);
  if constexpr (kBytes<kP>) {
    if constexpr (kP == Precision::int8) return {kWantsUnsigned && !kUnsigned ? made_unsigned(w) : w, w};
    else return {(kHigh ? w >> 4 : w) & splat_int(0x0f0f0f0f), w};
  } else if constexpr (kP == Precision::int8) {
    return {(IntVec)(((Shorts)w << 8) >> 8), (IntVec)((Shorts)w >> 8)};
  } else {
    const IntVec mask = splat_int(0x000f000f);
    return {(kHigh ? w >> 4 : w) & mask, (kHigh ? w >> 12 : w >> 8) & mask};
  }
}

// Returns the lower 16 bits of each lane in both of its halves.
inline IntVec in_both_halves(IntVec x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  constexpr long long kFirst = 0x0504050401000100, kSecond = 0x0d0c0d0c09080908;
  return (IntVec)_mm256_shuffle_epi8((__m256i)x, _mm256_set_epi64x(kSecond, kFirst, kSecond, kFirst));
#else
  return (x & 0xffff) | x << 16;
#endif
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
#elif defined(__AVX512F__)
  return (IntVec)((Shorts)acc + (Shorts)_mm512_maddubs_epi16((__m512i)w, (__m512i)x));
#elif defined(__AVX2__)
  return (IntVec)((Shorts)acc + (Shorts)_mm256_maddubs_epi16((__m256i)w, (__m256i)x));
#else
  return (void)w, (void)x, acc;  // never called
#endif
}

// Makes the compiler address all rows from one pointer. Otherwise it keeps one for each row's high bytes and one for
// its low bytes, more than there are registers.
inline void keep_pointer(const char*& p) { asm("" : "+r"(p)); }

// Bytes from four inputs to the next four: of their high bytes, or of their 16-bit integers.
template <Precision kP>
constexpr int kQuad = kBytes<kP> ? 4 : 8;

// Where a row's inputs lie from number `at` of the block on, a multiple of four: the high bytes, or 16-bit integers.
template <Precision kP>
inline const char* inputs(const ActivationBlock& a, int slot, int at) {
  const std::size_t part = at / kPadding, first = at % kPadding;
  const auto* block = reinterpret_cast<const char*>(&a);
  if constexpr (kBytes<kP>)
    return block + offsetof(ActivationBlock, high) + sizeof a.high[0] * part + kPadding * slot + first;
  else return block + offsetof(ActivationBlock, shorts) + sizeof a.shorts[0] * part + 2 * (kPadding * slot + first);
}

// The high or low bytes of four inputs, repeated in every lane. The row is `r` rows after the one whose inputs lie at
// x.
inline IntVec high_bytes(const char* x, int r) { return splat_int(*reinterpret_cast<const Int4*>(x + r * kPadding)); }
inline IntVec low_bytes(const char* x, int r) {
  constexpr int kToLow = int(offsetof(ActivationBlock, low) - offsetof(ActivationBlock, high));
  return high_bytes(x + kToLow, r);
}

// The integer sums of kM rows and kV vectors of outputs. With bytes, a sum is high · 128 + low.
template <Precision kP, int kM, int kV>
struct Sums {
  IntVec low[kM][kV], high[kM][kV];

  // Begins with the offsets of the block, or of one of its groups of inputs.
  void begin(const ActivationBlock& a, int slot, int group) {
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) {
        low[r][v] = splat_int(group < 0 ? a.offset[slot + r] : a.group_offset[0][slot + r][group]);
        high[r][v] = kShortSums<kP> ? splat_int(a.group_offset[1][slot + r][group]) : IntVec{};
      }
  }

  // Adds four inputs of each row; those of the first row lie at x.
  void add(const Weights4 (&w)[kV], const char* x) {
    for (int r = 0; r < kM; ++r)
      if constexpr (kBytes<kP>) {
        const IntVec upper = high_bytes(x, r), lower = low_bytes(x, r);
        for (int v = 0; v < kV; ++v) high[r][v] = add_bytes(high[r][v], w[v].first, upper);
        for (int v = 0; v < kV; ++v) low[r][v] = add_bytes(low[r][v], w[v].first, lower);
      } else {
        const auto* pairs = reinterpret_cast<const Int4*>(x + r * kPadding * sizeof(std::int16_t));
        const IntVec even = splat_int(pairs[0]), odd = splat_int(pairs[1]);
        for (int v = 0; v < kV; ++v) low[r][v] = add_pairs(low[r][v], w[v].first, even);
        for (int v = 0; v < kV; ++v) low[r][v] = add_pairs(low[r][v], w[v].second, odd);
      }
  }

  IntVec sum(int r, int v) const { return kBytes<kP> ? low[r][v] + (high[r][v] << 7) : low[r][v]; }

  // Adds the sum · factor to the totals; those of short sums are still high · 128 + low.
  void add_to(IntVec& low_total, IntVec& high_total, int r, int v, IntVec factor) const {
    if constexpr (kShortSums<kP>) {
      const IntVec twice = in_both_halves(factor);
      low_total = add_pairs(low_total, low[r][v], twice);
      high_total = add_pairs(high_total, high[r][v], twice);
    } else {  // unsigned, because damaged weights may overflow
      low_total = (IntVec)((UnsignedVec)low_total + (UnsignedVec)sum(r, v) * (UnsignedVec)factor);
    }
  }
};

// Adds a step: weights at p for the first of the outputs, inputs at x.
template <Precision kP, bool kHigh, bool kUnsigned = false, int kM, int kV>
inline void add_step(Sums<kP, kM, kV>& sums, const char* x, const char* p) {
  Weights4 w[kV];
  for (int v = 0; v < kV; ++v) w[v] = weights<kP, kHigh, kUnsigned>(p + v * kWidth * 4);
  sums.add(w, x);
}

// How often a block of kV vectors of outputs is read, because the registers hold two of short sums.
template <Precision kP, int kV>
constexpr int kPasses = kShortSums<kP> ? kV / 2 : 1;

// Computes the sums of a block of `depth` inputs. b and `factors` point at the first of the outputs.
template <Precision kP, bool kUnsigned = false, int kM, int kV>
inline void sum_block(IntVec (&out)[kM][kV], const ActivationBlock& a, int slot, const char* b, const char* factors,
                      int depth, Prefetch& prefetch) {
  constexpr int kStep = WeightBlock<kP>::kStep;
  if constexpr (kP == Precision::int8) {
    constexpr int kTurns = 4;
    Sums<kP, kM, kV> sums;
    sums.begin(a, slot, -1);
    Prefetch ahead = prefetch;
    for (int part = 0; part < depth / kPadding; ++part) {
      const char* x = inputs<kP>(a, slot, part * kPadding);
      for (int turns = 0; turns < kPadding / 4; turns += kTurns) {
        ahead.advance<kTurns, true>();
        keep_pointer(x);
#pragma GCC unroll 4
        for (int turn = 0; turn < kTurns; ++turn, x += kQuad<kP>, b += kStep)
          add_step<kP, false, kUnsigned>(sums, x, b);
      }
    }
    prefetch = ahead;
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kV; ++v) out[r][v] = sums.sum(r, v);
  } else {
    constexpr int kHalf = kGroupInputs / 8;  // quads of half a group
    constexpr int kAtOnce = kV / kPasses<kP, kV>;
    for (int first = 0; first < kV; first += kAtOnce) {
      IntVec low[kM][kAtOnce] = {}, high[kM][kAtOnce] = {};
      const char* step = b + first * kWidth * 4;
      for (int group = 0; group < depth / kGroupInputs; ++group) {
        Sums<kP, kM, kAtOnce> sums;
        sums.begin(a, slot, group);
        const char* x = inputs<kP>(a, slot, group * kGroupInputs);
        for (int turn = 0; turn < kHalf; ++turn, x += kQuad<kP>, step += kStep) {
          prefetch.advance();
          add_step<kP, false>(sums, x, step);
          add_step<kP, true>(sums, x + kHalf * kQuad<kP>, step);
        }
        for (int v = 0; v < kAtOnce; ++v) {
          const IntVec factor = load_bytes(factors + group * kTile + (first + v) * kWidth);
          for (int r = 0; r < kM; ++r) sums.add_to(low[r][v], high[r][v], r, v, factor);
        }
      }
      for (int r = 0; r < kM; ++r)
        for (int v = 0; v < kAtOnce; ++v) out[r][first + v] = low[r][v] + (high[r][v] << 7);
    }
  }
}

// Adds a block's sums with their scales: each operation is rounded separately.
inline Vec add_scaled(Vec y, IntVec sum, Vec weight_scale, float input_scale) {
  return y + __builtin_convertvector(sum, Vec) * (weight_scale * splat(input_scale));
}

// Computes one row by one tile, which is read in the order in which it lies in memory.
template <Precision kP>
void integer_row(const Product& p, int tile) {
  using Block = WeightBlock<kP>;
  constexpr int kV = kTile / kWidth;
  const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared);
  const auto* b = reinterpret_cast<const char*>(p.b) + tile * p.b_step;
  Prefetch prefetch{b + kAhead, Block::kStep / kPasses<kP, kV>};
  Vec y[kV];
  for (int v = 0; v < kV; ++v) y[v] = p.bias ? load(p.bias + tile * kTile + v * kWidth) : Vec{};
  for (int i = 0; i < block_count(p.k); ++i, ++a, b += Block::kWhole) {
    const int depth = block_depth(p.k, i);
    IntVec sums[1][kV];
    sum_block<kP>(sums, *a, 0, b, b + Block::factors_at(depth), depth, prefetch);
    const auto* scales = reinterpret_cast<const float*>(b + Block::scales_at(depth));
    for (int v = 0; v < kV; ++v) y[v] = add_scaled(y[v], sums[0][v], load(scales + v * kWidth), a->scale[0]);
    for (int at = Block::factors_at(depth); at < Block::bytes(depth); at += prefetch.step) prefetch.advance();
  }
  for (int v = 0; v < kV; ++v) finish(p, 0, tile * kTile + v * kWidth, y[v]);
}

// One block of a tile: its weights, which may have been made ready, and what belongs to them.
struct TileBlock {
  const char *weights, *factors;
  const float* scales;
  int depth;

  template <Precision kP>
  static TileBlock at(const char* block, int depth) {
    using Block = WeightBlock<kP>;
    return {block, block + Block::factors_at(depth), reinterpret_cast<const float*>(block + Block::scales_at(depth)),
            depth};
  }
};

// Adds a block to the sums y [row][kTile] of kM rows, from `slot` of their group on.
template <Precision kP, bool kUnsigned, int kM>
void add_rows(const ActivationBlock& a, int slot, const TileBlock& b, float* y, Prefetch& prefetch) {
  for (int column = 0; column < kTile; column += kPass) {
    IntVec sums[kM][kVectors];
    sum_block<kP, kUnsigned>(sums, a, slot, b.weights + column * 4, b.factors + column, b.depth, prefetch);
    for (int v = 0; v < kVectors; ++v)
      for (int r = 0; r < kM; ++r) {
        const int at = column + v * kWidth;
        float* row = y + r * kTile + at;
        store(row, add_scaled(load(row), sums[r][v], load(b.scales + at), a.scale[slot + r]));
      }
  }
}

// Adds a block to the sums of all rows.
template <Precision kP, bool kUnsigned = false>
void add_block(const Product& p, int block, const TileBlock& b, float* y, Prefetch& prefetch) {
  const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + block;
  for (int first = 0; first < p.m; first += kRowGroup, a += block_count(p.k)) {
    const int rows = p.m - first < kRowGroup ? p.m - first : kRowGroup;
    const int groups = (rows + kIntegerRows<kP> - 1) / kIntegerRows<kP>;
    for (int g = 0; g < groups; ++g) {
      const Group group(rows, g, groups);
      with_count<kIntegerRows<kP>>(group.count, [&]<int kM>() {
        add_rows<kP, kUnsigned, kM>(*a, group.begin, b, y + (first + group.begin) * kTile, prefetch);
      });
    }
  }
}

// Unpacks the weights of a block of int4 to int8: factor · q, in the layout of int8. A nibble n holds q + kZeroNibble,
// so factor · kZeroNibble is taken from factor · n, byte by byte: what overflows a byte on the way does not matter.
template <bool kUnsigned>
void unpack(const TileBlock& b, char* out) {
  constexpr int kStep = WeightBlock<Precision::int4>::kStep, kHalf = kGroupInputs / 8;
  typedef unsigned char Bytes __attribute__((vector_size(kWidth * 4)));
  typedef unsigned short Pairs __attribute__((vector_size(kWidth * 4)));  // unsigned, because products overflow
  const char* factors = b.factors;
  for (int group = 0; group < b.depth / kGroupInputs; ++group, factors += kTile, out += 2 * kHalf * kStep)
    for (int output = 0; output < kTile; output += kWidth) {
      const auto twice = (Pairs)in_both_halves(load_bytes(factors + output));
      const Pairs zero = twice * std::uint16_t(kZeroNibble);
      const IntVec zeros = (IntVec)((zero & 0x00ff) | zero << 8);
      const auto from = (Bytes)(kUnsigned ? made_unsigned(zeros) : zeros);
      const auto multiplied = [&](Pairs nibbles) {
        const Pairs even = (nibbles & 0x000f) * twice, odd = (nibbles & 0x0f00) * twice;
        return (IntVec)((Bytes)((even & 0x00ff) | odd) - from);
      };
      for (int step = 0; step < kHalf; ++step) {
        const auto w = (Pairs)load_ints(b.weights + (group * kHalf + step) * kStep + output * 4);
        store_ints(out + step * kStep + output * 4, multiplied(w));
        store_ints(out + (kHalf + step) * kStep + output * 4, multiplied(w >> 4));
      }
    }
}

// Writes the weights of a block as products of many rows want them, in the layout of int8.
template <Precision kP>
void make_ready(const TileBlock& b, char* out) {
  if constexpr (kP == Precision::int4) return unpack<kWantsUnsigned>(b, out);
  static_assert(kWantsUnsigned || !kCopiesInt8);
  for (int at = 0; at < b.depth * kTile; at += kWidth * 4)
    store_ints(out + at, made_unsigned(load_ints(b.weights + at)));
}

}  // namespace
}  // namespace gpt2lab

#if defined(__AMX_INT8__)
#include "matrix_integers.inl"
#endif

namespace gpt2lab {
namespace {

// Computes a few rows or more by one tile. `next` is prefetched meanwhile.
template <Precision kP>
void integer_rows(const Product& p, int tile, const char* next) {
  using Block = WeightBlock<kP>;
  const auto* b = reinterpret_cast<const char*>(p.b) + tile * p.b_step;
  float* y = p.sums.data ? p.sums.data + tile * p.sums.step : reinterpret_cast<float*>(p.scratch);
  char* ready = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  const bool makes_ready = p.m >= kReadyRows<kP>;
  const int column = tile * kTile;
  const int passes = (p.m + kIntegerRows<kP> - 1) / kIntegerRows<kP> * (kTile / kPass) *
                     (kP == Precision::int4 && makes_ready ? 2 : 1);
  Prefetch prefetch{next, passes < Block::kStep ? Block::kStep / passes : 1};
  for (int r = 0; p.sums.begins && r < p.m; ++r)
    for (int v = 0; v < kTile; v += kWidth) store(y + r * kTile + v, p.bias ? load(p.bias + column + v) : Vec{});
  for (int i = 0; i < block_count(p.k); ++i, b += Block::kWhole) {
    TileBlock block = TileBlock::at<kP>(b, block_depth(p.k, i));
    if (makes_ready) {
      const Part before = p.enter(Part::unpacking);
      make_ready<kP>(block, ready);
      p.enter(before);
      block.weights = ready;
      add_block<Precision::int8, kWantsUnsigned>(p, i, block, y, prefetch);
    } else {
      add_block<kP>(p, i, block, y, prefetch);
    }
  }
  if (!p.sums.ends) return;
  const Part before = p.enter(Part::finishing);
  for (int r = 0; r < p.m; ++r)
    for (int v = 0; v < kTile; v += kWidth) finish(p, r, column + v, load(y + r * kTile + v));
  p.enter(before);
}

template <Precision kP>
void integer_product(const Product& p, int first_tile, int last_tile) {
#if defined(__AMX_INT8__)
  if (p.m >= kMatrixUnitRows<kP>) return matrix_unit_product<kP>(p, first_tile, last_tile);
#endif
  if (p.m == 1 && !p.sums.data) {
    for (int t = first_tile; t < last_tile; ++t) integer_row<kP>(p, t);
    return;
  }
  // Bytes of inputs that weights pass at a time. 128 kB exceed the first-level cache and are still a tenth faster than
  // 1 MB; 256 kB where weights are made ready, which is done once for these rows.
  constexpr int kCached = kReadyRows<kP> <= kMaxRows ? 1 << 18 : 1 << 17;
  with_cached_rows(p, block_count(p.k) * int(sizeof(ActivationBlock)), kCached, [&](const Product& part) {
    for (int t = first_tile; t < last_tile; ++t)
      integer_rows<kP>(part, t, reinterpret_cast<const char*>(p.b) + (t + 1) * p.b_step);
  });
}

}  // namespace
}  // namespace gpt2lab
