#include "packing.h"

#include <cstring>

#include "kernels.h"

namespace gpt2lab {
namespace {

void pack_input_major(const float* source, int k, int n, int tile, float* out) {
  const int first = tile * kTile, width = n - first < kTile ? n - first : kTile;
  for (int i = 0; i < k; ++i) std::memcpy(out + std::size_t(i) * kTile, source + std::size_t(i) * n + first, width * 4);
}

// Transposes kTile rows in strips of 16 inputs, so that reads and writes both stay within a few cache lines.
void pack_output_major(const float* source, int k, int n, int tile, float* out) {
  const int first = tile * kTile, width = n - first < kTile ? n - first : kTile;
  for (int strip = 0; strip < k; strip += 16) {
    const int end = strip + 16 < k ? strip + 16 : k;
    for (int j = 0; j < width; ++j) {
      const float* row = source + std::size_t(first + j) * k;
      for (int i = strip; i < end; ++i) out[std::size_t(i) * kTile + j] = row[i];
    }
  }
}

}  // namespace

int PackedMatrix::tile_count() const { return (n + kTile - 1) / kTile; }

float PackedMatrix::at(int i, int j) const {
  return tiles.data()[(std::size_t(j / kTile) * k + i) * kTile + j % kTile];
}

PackedMatrix pack(const float* source, int k, int n, Layout layout, ThreadPool& pool) {
  PackedMatrix packed;
  packed.k = k;
  packed.n = n;
  const int tiles = packed.tile_count();
  const std::size_t tile_size = std::size_t(k) * kTile;
  packed.tiles = FloatArray(tiles * tile_size);
  pool.run([&](int thread) {
    const int begin = int(std::size_t(tiles) * thread / pool.size());
    const int end = int(std::size_t(tiles) * (thread + 1) / pool.size());
    for (int t = begin; t < end; ++t) {
      float* out = packed.tiles.data() + t * tile_size;
      if (layout == Layout::input_major) pack_input_major(source, k, n, t, out);
      else pack_output_major(source, k, n, t, out);
    }
  });
  return packed;
}

}  // namespace gpt2lab
