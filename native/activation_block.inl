// Inputs of products in int8 and int4: numbers rounded to whole numbers of 15 bits; included by integers.inl only.
//
// CPUs that multiply bytes get an input x as two bytes, x = high · 128 + low; the others get 16-bit integers and widen
// the weights. All bytes lie in -127 … 127, but for weights that an instruction wants unsigned. AVX2's products of
// bytes have 16 bits, which is enough for a group's sum of int4, but not for int8.
#pragma once

#include "kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
constexpr bool kDotProducts = true;
#else
constexpr bool kDotProducts = false;
#endif

// Whether sums of bytes have 16 bits: those of the even and of the odd pairs of inputs, side by side.
template <Precision kP>
constexpr bool kShortSums =
#if defined(__AVX2__)
    !kDotProducts && kP == Precision::int4;
#else
    false;
#endif

// Whether inputs are bytes.
template <Precision kP>
constexpr bool kBytes = kDotProducts || kShortSums<kP>;

constexpr int kLargestInput = 16319;  // of 15 bits: both bytes of high · 128 + low are at most 127

// One block of inputs of one group of rows, rounded: row r's values are about x[r][…] · scale[r]. Kernels have what
// they multiply: bytes, 16-bit integers, or for sums of either kind both.
struct alignas(64) ActivationBlock {
  // By kPadding inputs, then by row: the matrix unit reads these parts one after the other.
  std::int8_t high[kBlock / kPadding][kRowGroup][kPadding], low[kBlock / kPadding][kRowGroup][kPadding];
  std::int16_t shorts[kDotProducts ? 1 : kBlock / kPadding][kDotProducts ? 1 : kRowGroup][kDotProducts ? 1 : kPadding];
  float scale[kRowGroup];
  // What undoes the shift that makes weights unsigned, where kernels want that; of int4, for every group of inputs.
  // Of sums with 16 bits, those of the low and of the high bytes.
  std::int32_t offset[kRowGroup], group_offset[2][kRowGroup][kBlock / kGroupInputs];
};

// What is added to a weight q before it is multiplied; ActivationBlock::offset undoes it.
template <Precision kP>
constexpr int kZeroPoint = kP == Precision::int4 ? kZeroNibble :
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
                                                 128;
#else
                                                 0;
#endif

// Stores a vector of a row's inputs, from number `at` of its block on; returns the high bytes. The bytes of positive
// inputs are positive too if kPositive, for instructions that want them unsigned.
template <Precision kP, bool kPositive = false>
inline IntVec store_inputs(ActivationBlock& out, int slot, int at, IntVec x) {
  const IntVec high = kPositive ? x >> 7 : (x + 64) >> 7;
  const int part = at / kPadding, first = at % kPadding;
  if constexpr (kBytes<kP>) {
    store_bytes(out.high[part][slot] + first, high);
    store_bytes(out.low[part][slot] + first, x - (high << 7));
  }
  if constexpr (!kDotProducts) {
    store_shorts(out.shorts[part][slot] + first,
                 middle_swapped(x));  // of every four, the even ones and then the odd ones
  }
  return high;
}

// The largest magnitude of some numbers. Magnitudes are compared by their bits, so that NaN and infinity win and reach
// the scale.
struct Largest {
  IntVec top = {};
  void add(Vec x) {
    const IntVec magnitude = (IntVec)x & splat_int(0x7fffffff);
    top = magnitude > top ? magnitude : top;
  }
};

// How the numbers of a block are rounded: the largest becomes ±kLargestInput.
struct InputScale {
  float scale;
  bool zero;
  Vec inverse;

  explicit InputScale(Largest all) {
    constexpr float kTiny = 1e-30f;  // blocks smaller than this are zero: the inverse of their scale would overflow
    const float largest = __builtin_bit_cast(float, largest_lane(all.top));
    zero = !(largest >= kTiny && largest < __builtin_inff());  // only the scale reports NaN and infinity
    inverse = splat(zero ? 0.0f : kLargestInput / largest);
    scale = largest < kTiny ? 0.0f : largest / kLargestInput;
  }
  IntVec round(Vec x) const { return zero ? IntVec{} : (IntVec)(x * inverse + kRound) - (IntVec)splat(kRound); }
};

#if defined(__AVX512VNNI__)

// Splits kPadding inputs into their bytes, four vectors at a time: with 16 bits, half the operations are enough.
struct SplitInputs {
  static_assert(kPadding == 4 * kWidth);
  __m512i pairs[2];  // as 16-bit integers, each from two vectors: four of the first one, four of the second one, …

  explicit SplitInputs(const IntVec (&x)[4])
      : pairs{_mm512_packs_epi32((__m512i)x[0], (__m512i)x[1]), _mm512_packs_epi32((__m512i)x[2], (__m512i)x[3])} {}

  // Stores the bytes; those of positive inputs are positive too if kPositive.
  template <bool kPositive>
  void store(ActivationBlock& out, int slot, int at) const {
    __m512i high[2], low[2];
    for (int i = 0; i < 2; ++i) {
      high[i] = _mm512_srai_epi16(kPositive ? pairs[i] : _mm512_add_epi16(pairs[i], _mm512_set1_epi16(64)), 7);
      low[i] = _mm512_sub_epi16(pairs[i], _mm512_slli_epi16(high[i], 7));
    }
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const auto store_bytes = [&](std::int8_t* to, const __m512i(&shorts)[2]) {
      const __m512i bytes = _mm512_packs_epi16(shorts[0], shorts[1]);
      _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(0xffff, order, bytes));
    };
    store_bytes(out.high[at / kPadding][slot], high);
    store_bytes(out.low[at / kPadding][slot], low);
  }

  // Returns the sums of a group of inputs, the first or the second one, in 16 lanes.
  IntVec sums(int group) const {
    static_assert(kGroupInputs == 2 * kWidth);
    return (IntVec)_mm512_dpwssd_epi32(_mm512_setzero_si512(), pairs[group], _mm512_set1_epi16(1));
  }
};

// Returns the sums of the lanes of eight vectors: of the first four in lanes 0 to 3, of the others in lanes 8 to 11.
inline IntVec sum_lanes(const IntVec (&x)[8]) {
  __m512i four[4], two[2];
  for (int i = 0; i < 4; ++i) {
    const auto first = (__m512i)x[2 * i], second = (__m512i)x[2 * i + 1];
    four[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(first, second), _mm512_unpackhi_epi32(first, second));
  }
  for (int i = 0; i < 2; ++i)
    two[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(four[2 * i], four[2 * i + 1]),
                              _mm512_unpackhi_epi64(four[2 * i], four[2 * i + 1]));
  const __m512i half =
      _mm512_add_epi32(_mm512_shuffle_i32x4(two[0], two[1], 0x44), _mm512_shuffle_i32x4(two[0], two[1], 0xee));
  return (IntVec)_mm512_add_epi32(half, _mm512_shuffle_i32x4(half, half, 0xb1));
}

// Rounds a block of a row: `depth` numbers, a multiple of kPadding.
template <Precision kP>
inline void round_block(const float* x, int depth, ActivationBlock& out, int slot) {
  Largest largest;
  for (int i = 0; i < depth; i += kWidth) largest.add(load(x + i));
  const InputScale rounding(largest);
  IntVec sums[kBlock / kGroupInputs] = {};
  for (int at = 0; at < depth; at += kPadding) {
    IntVec q[4];
    for (int i = 0; i < 4; ++i) q[i] = rounding.round(load(x + at + i * kWidth));
    const SplitInputs split(q);
    split.store<false>(out, slot, at);
    for (int group = 0; group < 2; ++group) sums[at / kGroupInputs + group] = split.sums(group);
  }
  if constexpr (kP == Precision::int4) {
    const IntVec offsets = sum_lanes(sums) * -kZeroPoint<kP>;
    std::int32_t* group_offset = out.group_offset[0][slot];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(group_offset), _mm512_castsi512_si128((__m512i)offsets));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(group_offset + 4), _mm512_extracti32x4_epi32((__m512i)offsets, 2));
  }
  IntVec whole = {};
  for (const IntVec& some : sums) whole += some;
  out.offset[slot] = -kZeroPoint<Precision::int8> * sum_lanes(whole);  // int4 needs it too, where it is unpacked
  out.scale[slot] = rounding.scale;
}

#else

// Rounds a block of a row: `depth` numbers, a multiple of kPadding.
template <Precision kP>
inline void round_block(const float* x, int depth, ActivationBlock& out, int slot) {
  Largest largest;
  for (int i = 0; i < depth; i += kWidth) largest.add(load(x + i));
  const InputScale rounding(largest);
  IntVec whole = {};
  for (int group = 0; group < depth / kGroupInputs; ++group) {
    IntVec total = {}, high = {};
    for (int at = group * kGroupInputs; at < (group + 1) * kGroupInputs; at += kWidth) {
      const IntVec q = rounding.round(load(x + at));
      total += q;
      high += store_inputs<kP>(out, slot, at, q);
    }
    whole += total;
    if constexpr (kShortSums<kP>) {  // 16 bits of low, 16 of high
      const int highs = sum_lanes(high), lows = sum_lanes(total) - 128 * highs;
      out.group_offset[0][slot][group] = -kZeroPoint<kP> * lows & 0xffff;
      out.group_offset[1][slot][group] = -kZeroPoint<kP> * highs & 0xffff;
    } else if constexpr (kP == Precision::int4) {
      out.group_offset[0][slot][group] = -kZeroPoint<kP> * sum_lanes(total);
    }
  }
  // int4 needs it too, where it is unpacked.
  out.offset[slot] = kZeroPoint<Precision::int8> ? -kZeroPoint<Precision::int8> * sum_lanes(whole) : 0;
  out.scale[slot] = rounding.scale;
}

#endif

// Rounds row `row` of a matrix of inputs; out is the first block of its group.
template <Precision kP>
void round_row(const float* x, int k, int row, ActivationBlock* out) {
  for (int block = 0; block < block_count(k); ++block, ++out) {
    const int begin = block * kBlock, depth = block_depth(k, block);
    float padded[kBlock];
    const float* numbers = x + begin;
    if (begin + depth > k) {
      __builtin_memset(padded, 0, sizeof padded);
      __builtin_memcpy(padded, numbers, (k - begin) * sizeof(float));
      numbers = padded;
    }
    round_block<kP>(numbers, depth, *out, row % kRowGroup);
  }
}

}  // namespace
}  // namespace gpt2lab
