// Matrices in the order in which the kernels read them.
//
// A packed matrix is a sequence of tiles of kTile outputs. In float32 a tile is [k][kTile] numbers; in bfloat16 it is
// [k / 2][kTile][2], with k rounded up to a multiple of kBFloat16Inputs; in int8 and int4 it is a sequence of blocks:
// see weight_block.h. Outputs beyond n and inputs beyond k are zero.
#pragma once

#include <cstddef>

#include "kernels.h"
#include "thread_pool.h"

namespace gpt2lab {

// The version of the layout of weights in memory. It changes with the layout, so packed weights of another version are
// not used.
constexpr int kPackedLayout = 3;

// A packed matrix of `k` inputs and `n` outputs, in memory that it does not own.
struct PackedMatrix {
  Precision precision;
  std::byte* tiles = nullptr;
  int k = 0, n = 0;

  int tile_count() const { return (n + kTile - 1) / kTile; }
  std::size_t tile_bytes() const;
  // Returns where an input's weights, or its block's, begin in a tile; `input` is a multiple of kBlock.
  std::size_t offset_of(int input) const;
  std::size_t bytes() const { return tile_count() * tile_bytes(); }

  // Writes the `k` inputs of output j as float32.
  void column(int j, float* out) const;
};

enum class Layout { input_major, output_major };  // source is [k, n] as in the original, or [n, k] as wte is

// Fills `matrix`. Returns false if a value is not finite in its precision (float32 accepts every value).
bool pack(const float* source, Layout layout, const PackedMatrix& matrix, ThreadPool& pool);

// A matrix that is already rounded to int8 or int4: whole numbers q [n, k] and scales [n, blocks], and of int4 factors
// [n, groups].
struct Integers {
  const std::int8_t* q;
  const float* scales;
  const std::int8_t* factors;
};

// Fills a `matrix` of int8 or int4 with these numbers as they are. Returns false if one is out of its precision's
// range.
bool pack(const Integers& source, const PackedMatrix& matrix, ThreadPool& pool);

}  // namespace gpt2lab
