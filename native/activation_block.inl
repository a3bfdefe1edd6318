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
