#include "packing.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "weight_block.h"

namespace gpt2lab {
namespace {

constexpr int kLargestInt8 = 127, kLargestFactor = 15;
constexpr int kGroups = kBlock / kGroupInputs;
constexpr float kTiny = 1e-30f;  // blocks of smaller weights are zero: the inverse of their scale would overflow

// The inputs of one block for the outputs of a tile; rows are inputs.
struct Values {
  float at[kBlock][kTile];
};

void gather(const float* source, Layout layout, const PackedMatrix& m, int tile, int first, Values& values) {
  const int column = tile * kTile, width = std::min(kTile, m.n - column), depth = std::min(kBlock, m.k - first);
  if (width < kTile || depth < kBlock) std::memset(&values, 0, sizeof values);
  for (int i = 0; i < depth && layout == Layout::input_major; ++i)
    std::memcpy(values.at[i], source + std::size_t(first + i) * m.n + column, width * sizeof(float));
  for (int j = 0; j < width && layout == Layout::output_major; ++j)
    for (int i = 0; i < depth; ++i) values.at[i][j] = source[std::size_t(column + j) * m.k + first + i];
}

// Rounds to a whole number, ties to even; |x| is below 2^22.
float whole(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23
  return (x + kRound) - kRound;
}

float clamped(float x, float least, float most) {
  const float above = x < least ? least : x;
  return above > most ? most : above;
}

// Rounds a positive number to 16 binary digits, ties to even, so that its products with 7-bit integers are exact.
float rounded_scale(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7f + (bits >> 8 & 1)) & 0xffffff00);
}

// Writes each output's largest magnitude; returns false if a value is not finite.
bool largest_magnitudes(const Values& values, int depth, float* largest) {
  bool finite = true;
  std::fill_n(largest, kTile, 0.0f);
  for (int i = 0; i < depth; ++i)
    for (int j = 0; j < kTile; ++j) {
      const float magnitude = std::fabs(values.at[i][j]);
      finite &= magnitude <= std::numeric_limits<float>::max();  // false for NaN
      largest[j] = magnitude > largest[j] ? magnitude : largest[j];
    }
  return finite;
}

bool encode_int8(const Values& values, int depth, std::byte* out) {
  using Block = WeightBlock<Precision::int8>;
  float scale[kTile], inverse[kTile];
  if (!largest_magnitudes(values, depth, scale)) return false;
  for (int j = 0; j < kTile; ++j) {
    const bool zero = scale[j] < kTiny;
    scale[j] = zero ? 0.0f : rounded_scale(scale[j] / float(kLargestInt8));
    inverse[j] = zero ? 0.0f : 1.0f / scale[j];
  }
  for (int i = 0; i < depth; ++i) {
    std::int8_t row[kTile];
    for (int j = 0; j < kTile; ++j)
      row[j] = std::int8_t(clamped(whole(values.at[i][j] * inverse[j]), -kLargestInt8, kLargestInt8));
    for (int j = 0; j < kTile; ++j) out[Block::step_at(i, j) + i % 4] = std::byte(row[j]);
  }
  std::memcpy(out + Block::scales_at(depth), scale, sizeof scale);
  return true;
}

// A block of int4 on the way: numbers relative to each output's largest magnitude, and each group's extreme.
struct Int4Search {
  Values values;
  float extreme[kGroups][kTile];  // the number of largest magnitude, with its sign
  int groups;
};

// The factors of a block, and how far the weights that they give are from the true ones.
struct Int4Choice {
  float factor[kGroups][kTile], error[kTile];
};

// Adds up the squared errors of one group's weights, if they are rounded to multiples of factor · scale.
void group_error(const Int4Search& search, int group, const float* factor, float scale, float* error) {
  float step[kTile], inverse[kTile];
  for (int j = 0; j < kTile; ++j) {
    step[j] = factor[j] * scale;
    inverse[j] = 1.0f / step[j];
    error[j] = 0.0f;
  }
  for (int i = group * kGroupInputs; i < (group + 1) * kGroupInputs; ++i)
    for (int j = 0; j < kTile; ++j) {
      const float x = search.values.at[i][j];
      const float rest = x - clamped(whole(x * inverse[j]), -kZeroNibble, kZeroNibble - 1) * step[j];
      error[j] += rest * rest;
    }
}

// Finds factors for one scale. A factor has the sign that maps the group's extreme to -8, the one number without an
// opposite. Where a neighbour of the factor that does this exactly has a smaller error, takes that.
void choose_factors(const Int4Search& search, float scale, Int4Choice& choice) {
  constexpr float kNeighbours[] = {1.0f, 0.9f, 1.1f};
  std::fill_n(choice.error, kTile, 0.0f);
  for (int group = 0; group < search.groups; ++group) {
    float least[kTile];
    for (const float neighbour : kNeighbours) {
      float factor[kTile], error[kTile];
      for (int j = 0; j < kTile; ++j) {
        const float extreme = search.extreme[group][j];
        const float size = std::fabs(extreme) / (scale * float(kZeroNibble));
        const float factor_size = clamped(whole(size * neighbour), 1, kLargestFactor);
        factor[j] = extreme > 0 ? -factor_size : factor_size;
      }
      group_error(search, group, factor, scale, error);
      for (int j = 0; j < kTile; ++j)
        if (neighbour == kNeighbours[0] || error[j] < least[j]) {
          least[j] = error[j];
          choice.factor[group][j] = factor[j];
        }
    }
    for (int j = 0; j < kTile; ++j) choice.error[j] += least[j];
  }
}

// Writes the block with the chosen factors; `scale` belongs to the relative numbers, scale · largest to the true ones.
void store_int4(const Int4Search& search, int depth, const Int4Choice& choice, const float* scale, const float* largest,
                std::byte* out) {
  using Block = WeightBlock<Precision::int4>;
  std::memset(out, 0, Block::factors_at(depth));
  for (int i = 0; i < depth; ++i)
    for (int j = 0; j < kTile; ++j) {
      const bool zero = largest[j] < kTiny;
      const float inverse = 1.0f / (choice.factor[i / kGroupInputs][j] * scale[j]);
      const float q = zero ? 0.0f : clamped(whole(search.values.at[i][j] * inverse), -kZeroNibble, kZeroNibble - 1);
      const int shift = i % kGroupInputs / (kGroupInputs / 2) * 4;
      out[Block::step_at(i, j) + i % 4] |= std::byte((int(q) + kZeroNibble) << shift);
    }
  for (int group = 0; group < search.groups; ++group)
    for (int j = 0; j < kTile; ++j)
      out[Block::factors_at(depth) + group * kTile + j] = std::byte(std::int8_t(choice.factor[group][j]));
  float scales[kTile];
  for (int j = 0; j < kTile; ++j) scales[j] = largest[j] < kTiny ? 0.0f : rounded_scale(largest[j] * scale[j]);
  std::memcpy(out + Block::scales_at(depth), scales, sizeof scales);
}

// Rounds to int4. The scale that maps the block's largest magnitude to 15 · 8 is tried, and a few smaller ones; the one
// whose weights have the least squared error is taken.
bool encode_int4(const Values& values, int depth, std::byte* out) {
  constexpr float kScales[] = {1.0f / 120, 0.95f / 120, 0.9f / 120, 0.85f / 120};
  float largest[kTile], scale[kTile];
  if (!largest_magnitudes(values, depth, largest)) return false;
  Int4Search search;
  search.groups = depth / kGroupInputs;
  for (int j = 0; j < kTile; ++j) scale[j] = largest[j] < kTiny ? 0.0f : 1.0f / largest[j];
  std::memset(search.extreme, 0, sizeof search.extreme);
  for (int i = 0; i < depth; ++i)
    for (int j = 0; j < kTile; ++j) {
      const float x = values.at[i][j] * scale[j];
      float& extreme = search.extreme[i / kGroupInputs][j];
      search.values.at[i][j] = x;
      extreme = std::fabs(x) > std::fabs(extreme) ? x : extreme;
    }
  Int4Choice best, choice;
  for (const float s : kScales) {
    choose_factors(search, s, choice);
    for (int j = 0; j < kTile; ++j) {
      if (s != kScales[0] && !(choice.error[j] < best.error[j])) continue;
      scale[j] = s;
      best.error[j] = choice.error[j];
      for (int group = 0; group < search.groups; ++group) best.factor[group][j] = choice.factor[group][j];
    }
  }
  store_int4(search, depth, best, scale, largest, out);
  return true;
}

bool encode_bfloat16(const Values& values, int depth, std::byte* out) {
  bool finite = true;
  for (int i = 0; i < depth; i += 2) {
    std::uint16_t pairs[kTile][2];
    for (int j = 0; j < kTile; ++j)
      for (int second = 0; second < 2; ++second) {
        const auto bits = std::bit_cast<std::uint32_t>(values.at[i + second][j]);
        const auto rounded = std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        pairs[j][second] = rounded;
        finite &= (bits & 0x7f800000) != 0x7f800000 && (rounded & 0x7f80) != 0x7f80;
      }
    std::memcpy(out + i / 2 * sizeof pairs, pairs, sizeof pairs);
  }
  return finite;
}

bool pack_tile(const float* source, Layout layout, const PackedMatrix& m, int tile) {
  std::byte* out = m.tiles + tile * m.tile_bytes();
  bool finite = true;
  Values values;
  for (int first = 0; first < m.k; first += kBlock) {
    gather(source, layout, m, tile, first, values);
    const int depth = std::min(kBlock, m.k - first), padded = block_depth(m.k, first / kBlock);
    std::byte* block = out + m.offset_of(first);
    switch (m.precision) {
      case Precision::float32: std::memcpy(block, values.at, depth * sizeof values.at[0]); break;
      case Precision::bfloat16: finite &= encode_bfloat16(values, rounded_up(depth, kBFloat16Inputs), block); break;
      case Precision::int8: finite &= encode_int8(values, padded, block); break;
      case Precision::int4: finite &= encode_int4(values, padded, block); break;
    }
  }
  return finite;
}

// Copies the block of `column`, an output in the tile; an output beyond n, and inputs beyond k, become zero.
template <Precision kP>
bool place(const Integers& source, const PackedMatrix& m, int output, int column, int block, std::byte* out) {
  using Block = WeightBlock<kP>;
  constexpr int kLeast = kP == Precision::int8 ? -kLargestInt8 : -kZeroNibble;
  constexpr int kMost = kP == Precision::int8 ? kLargestInt8 : kZeroNibble - 1;
  const int depth = block_depth(m.k, block), first = block * kBlock, groups = (m.k + kGroupInputs - 1) / kGroupInputs;
  const bool inside = output < m.n;
  bool valid = true;
  for (int i = 0; i < depth; ++i) {
    const int q = inside && first + i < m.k ? source.q[std::size_t(output) * m.k + first + i] : 0;
    valid &= q >= kLeast && q <= kMost;
    std::byte& byte = out[Block::step_at(i, column) + i % 4];
    if constexpr (kP == Precision::int8) byte = std::byte(std::int8_t(q));
    else byte |= std::byte(((q + kZeroNibble) & 15) << i % kGroupInputs / (kGroupInputs / 2) * 4);
  }
  for (int i = 0; kP == Precision::int4 && i < depth / kGroupInputs; ++i) {
    const int group = first / kGroupInputs + i;
    const int factor = inside && group < groups ? source.factors[std::size_t(output) * groups + group] : 1;
    valid &= factor >= -kLargestFactor && factor <= kLargestFactor;
    out[Block::factors_at(depth) + i * kTile + column] = std::byte(std::int8_t(factor));
  }
  const float scale = inside ? source.scales[std::size_t(output) * block_count(m.k) + block] : 0.0f;
  std::memcpy(out + Block::scales_at(depth) + column * sizeof scale, &scale, sizeof scale);
  return valid && std::fabs(scale) <= std::numeric_limits<float>::max();
}

template <Precision kP>
bool place_tile(const Integers& source, const PackedMatrix& m, int tile) {
  using Block = WeightBlock<kP>;
  std::byte* out = m.tiles + tile * m.tile_bytes();
  std::memset(out, 0, m.tile_bytes());
  bool valid = true;
  for (int block = 0; block < block_count(m.k); ++block)
    for (int column = 0; column < kTile; ++column)
      valid &= place<kP>(source, m, tile * kTile + column, column, block, out + block * Block::kWhole);
  return valid;
}

// Calls pack_one for every tile of a matrix, on all threads. Returns whether all calls did.
template <typename F>
bool for_tiles(const PackedMatrix& matrix, ThreadPool& pool, F&& pack_one) {
  std::atomic<bool> valid{true};
  const int tiles = matrix.tile_count();
  pool.run([&](int thread) {
    const int begin = int(std::size_t(tiles) * thread / pool.size());
    const int end = int(std::size_t(tiles) * (thread + 1) / pool.size());
    for (int t = begin; t < end; ++t)
      if (!pack_one(t)) valid = false;
  });
  return valid;
}

// Reads output `output` of a tile of int8 or int4.
template <Precision kP>
void read_integers(const std::byte* tile, int output, int k, float* out) {
  using Block = WeightBlock<kP>;
  for (int first = 0; first < k; first += kBlock, tile += Block::kWhole) {
    const int depth = block_depth(k, first / kBlock);
    float scale;
    std::memcpy(&scale, tile + Block::scales_at(depth) + output * sizeof scale, sizeof scale);
    for (int i = 0; i < depth && first + i < k; ++i) {
      const auto byte = std::uint8_t(tile[Block::step_at(i, output) + i % 4]);
      int q = std::int8_t(byte);
      if constexpr (kP == Precision::int4) {
        const auto factor = std::int8_t(tile[Block::factors_at(depth) + i / kGroupInputs * kTile + output]);
        q = ((byte >> i % kGroupInputs / (kGroupInputs / 2) * 4 & 15) - kZeroNibble) * factor;
      }
      out[first + i] = float(q) * scale;
    }
  }
}

}  // namespace

std::size_t PackedMatrix::offset_of(int input) const {
  const std::size_t block = input / kBlock;
  switch (precision) {
    case Precision::float32: return input * kTile * sizeof(float);
    case Precision::bfloat16: return input * kTile * sizeof(BFloat16);
    case Precision::int8: return block * WeightBlock<Precision::int8>::kWhole;
    case Precision::int4: return block * WeightBlock<Precision::int4>::kWhole;
  }
  return 0;
}

std::size_t PackedMatrix::tile_bytes() const {
  switch (precision) {
    case Precision::float32: return std::size_t(k) * kTile * sizeof(float);
    case Precision::bfloat16: return std::size_t(rounded_up(k, kBFloat16Inputs)) * kTile * sizeof(BFloat16);
    case Precision::int8: return WeightBlock<Precision::int8>::tile_bytes(k);
    case Precision::int4: return WeightBlock<Precision::int4>::tile_bytes(k);
  }
  return 0;
}

void PackedMatrix::column(int j, float* out) const {
  const std::byte* tile = tiles + j / kTile * tile_bytes();
  const int output = j % kTile;
  switch (precision) {
    case Precision::float32:
      for (int i = 0; i < k; ++i) std::memcpy(out + i, tile + (std::size_t(i) * kTile + output) * 4, 4);
      break;
    case Precision::bfloat16:
      for (int i = 0; i < k; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, tile + (std::size_t(i / 2) * kTile + output) * 4 + i % 2 * 2, 2);
        out[i] = std::bit_cast<float>(std::uint32_t(bits) << 16);
      }
      break;
    case Precision::int8: return read_integers<Precision::int8>(tile, output, k, out);
    case Precision::int4: return read_integers<Precision::int4>(tile, output, k, out);
  }
}

bool pack(const float* source, Layout layout, const PackedMatrix& matrix, ThreadPool& pool) {
  return for_tiles(matrix, pool, [&](int tile) { return pack_tile(source, layout, matrix, tile); });
}

bool pack(const Integers& source, const PackedMatrix& matrix, ThreadPool& pool) {
  return for_tiles(matrix, pool, [&](int tile) {
    return matrix.precision == Precision::int8 ? place_tile<Precision::int8>(source, matrix, tile)
                                               : place_tile<Precision::int4>(source, matrix, tile);
  });
}

}  // namespace gpt2lab
