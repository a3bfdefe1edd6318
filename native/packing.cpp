#include "packing.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace gpt2lab {
namespace {

constexpr int kHalfTile = kTile / 2;
constexpr std::size_t kHalfBytesQ8 = kHalfTile * kBlock, kHalfBytesQ4 = kHalfBytesQ8 / 2;
constexpr std::size_t kScaleBytes = kTile * sizeof(Half);

// The inputs of one block for the outputs of a tile; rows are inputs.
struct Values {
  float at[kBlock][kTile];
};

Values gather(const float* source, Layout layout, const PackedMatrix& m, int tile, int first) {
  Values values;
  const int column = tile * kTile, width = std::min(kTile, m.n - column), depth = std::min(kBlock, m.k - first);
  if (width < kTile || depth < kBlock) std::memset(&values, 0, sizeof values);
  for (int i = 0; i < depth && layout == Layout::input_major; ++i)
    std::memcpy(values.at[i], source + std::size_t(first + i) * m.n + column, width * sizeof(float));
  for (int j = 0; j < width && layout == Layout::output_major; ++j)
    for (int i = 0; i < depth; ++i) values.at[i][j] = source[std::size_t(column + j) * m.k + first + i];
  return values;
}

float inverse(float scale) {
  const float x = 1.0f / scale;
  return std::isinf(x) ? 0.0f : x;
}

// Stores the scales; returns false if one is not finite.
bool store_scales(const float* scale, std::byte* out) {
  bool finite = true;
  Half halves[kTile];
  for (int j = 0; j < kTile; ++j) {
    halves[j] = to_half(scale[j]);
    finite = finite && (halves[j].bits & 0x7c00) != 0x7c00;
  }
  std::memcpy(out, halves, kScaleBytes);
  return finite;
}

bool encode_q8(const Values& values, std::byte* out) {
  float scale[kTile] = {}, invert[kTile];
  bool finite = true;
  for (int i = 0; i < kBlock; ++i)
    for (int j = 0; j < kTile; ++j) {
      const float magnitude = std::fabs(values.at[i][j]);
      finite &= magnitude <= std::numeric_limits<float>::max();  // false for NaN
      scale[j] = magnitude > scale[j] ? magnitude : scale[j];
    }
  if (!finite) return false;
  for (int j = 0; j < kTile; ++j) {
    scale[j] /= 127.0f;
    invert[j] = inverse(scale[j]);
  }
  for (int i = 0; i < kBlock; ++i) {
    std::int8_t row[kTile];
    for (int j = 0; j < kTile; ++j) {  // rounds halves away from zero, like C's roundf
      const float scaled = values.at[i][j] * invert[j], magnitude = std::fabs(scaled);
      const int whole = int(magnitude), rounded = whole + (magnitude - float(whole) >= 0.5f);
      row[j] = std::int8_t(scaled < 0 ? -rounded : rounded);
    }
    for (int j = 0; j < kTile; ++j)
      out[j / kHalfTile * kHalfBytesQ8 + (i / 4 * kHalfTile + j % kHalfTile) * 4 + i % 4] = std::byte(row[j]);
  }
  return store_scales(scale, out + 2 * kHalfBytesQ8);
}

bool encode_q4(const Values& values, std::byte* out) {
  float largest[kTile] = {}, scale[kTile], invert[kTile];
  bool finite = true;
  for (int i = 0; i < kBlock; ++i)
    for (int j = 0; j < kTile; ++j) {
      const float x = values.at[i][j];
      finite &= std::fabs(x) <= std::numeric_limits<float>::max();
      largest[j] = std::fabs(x) > std::fabs(largest[j]) ? x : largest[j];
    }
  if (!finite) return false;
  for (int j = 0; j < kTile; ++j) {
    scale[j] = largest[j] / -8.0f;
    invert[j] = inverse(scale[j]);
  }
  std::memset(out, 0, 2 * kHalfBytesQ4);
  for (int i = 0; i < kBlock; ++i)
    for (int j = 0; j < kTile; ++j) {
      const int q = std::min(15, int(values.at[i][j] * invert[j] + 8.5f));
      const int step = i % kHalfTile / 4, shift = i / kHalfTile * 4;
      out[j / kHalfTile * kHalfBytesQ4 + (step * kHalfTile + j % kHalfTile) * 4 + i % 4] |= std::byte(q << shift);
    }
  return store_scales(scale, out + 2 * kHalfBytesQ4);
}

bool encode_bfloat16(const Values& values, std::byte* out) {
  bool finite = true;
  for (int i = 0; i < kBlock; i += 2) {
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
  const std::size_t step = m.tile_bytes() / block_count(m.k);
  bool finite = true;
  for (int first = 0; first < m.k; first += kBlock) {
    const Values values = gather(source, layout, m, tile, first);
    const int depth = std::min(kBlock, m.k - first);
    switch (m.precision) {
      case Precision::float32:
        std::memcpy(out + first * sizeof values.at[0], values.at, depth * sizeof values.at[0]);
        break;
      case Precision::bfloat16: finite &= encode_bfloat16(values, out + first / kBlock * step); break;
      case Precision::q8_0: finite &= encode_q8(values, out + first / kBlock * step); break;
      case Precision::q4_0: finite &= encode_q4(values, out + first / kBlock * step); break;
    }
  }
  return finite;
}

}  // namespace

std::size_t PackedMatrix::tile_bytes() const {
  switch (precision) {
    case Precision::float32: return std::size_t(k) * kTile * sizeof(float);
    case Precision::bfloat16: return std::size_t(block_count(k)) * kBlock * kTile * sizeof(BFloat16);
    case Precision::q8_0: return block_count(k) * (2 * kHalfBytesQ8 + kScaleBytes);
    case Precision::q4_0: return block_count(k) * (2 * kHalfBytesQ4 + kScaleBytes);
  }
  return 0;
}

void PackedMatrix::column(int j, float* out) const {
  const std::byte* tile = tiles + j / kTile * tile_bytes();
  const int in_tile = j % kTile, half = in_tile / kHalfTile, in_half = in_tile % kHalfTile;
  if (precision == Precision::float32) {
    for (int i = 0; i < k; ++i) std::memcpy(out + i, tile + (std::size_t(i) * kTile + in_tile) * 4, 4);
    return;
  }
  if (precision == Precision::bfloat16) {
    for (int i = 0; i < k; ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, tile + (std::size_t(i / 2) * kTile + in_tile) * 4 + i % 2 * 2, 2);
      out[i] = std::bit_cast<float>(std::uint32_t(bits) << 16);
    }
    return;
  }
  const bool q8 = precision == Precision::q8_0;
  const std::size_t half_bytes = q8 ? kHalfBytesQ8 : kHalfBytesQ4, stride = 2 * half_bytes + kScaleBytes;
  for (int first = 0; first < k; first += kBlock, tile += stride) {
    Half h;
    std::memcpy(&h, tile + 2 * half_bytes + in_tile * sizeof(Half), sizeof h);
    const float scale = to_float(h);
    for (int i = 0; i < kBlock && first + i < k; ++i) {
      const int step = q8 ? i / 4 : i % kHalfTile / 4;
      const auto byte = std::uint8_t(tile[half * half_bytes + (step * kHalfTile + in_half) * 4 + i % 4]);
      out[first + i] = scale * float(q8 ? std::int8_t(byte) : (byte >> (i / kHalfTile * 4) & 15) - 8);
    }
  }
}

bool pack(const float* source, Layout layout, const PackedMatrix& matrix, ThreadPool& pool) {
  std::atomic<bool> finite{true};
  const int tiles = matrix.tile_count();
  pool.run([&](int thread) {
    const int begin = int(std::size_t(tiles) * thread / pool.size());
    const int end = int(std::size_t(tiles) * (thread + 1) / pool.size());
    for (int t = begin; t < end; ++t)
      if (!pack_tile(source, layout, matrix, t)) finite = false;
  });
  return finite;
}

}  // namespace gpt2lab
