// Weights in the order in which the kernels read them.
#pragma once

#include <cstddef>

#include "memory.h"
#include "thread_pool.h"

namespace gpt2lab {

// A matrix of `k` inputs and `n` outputs as tiles [n / kTile][k][kTile]; columns beyond n are zero.
struct PackedMatrix {
  FloatArray tiles;
  int k = 0, n = 0;

  int tile_count() const;

  // Element of input i and output j.
  float at(int i, int j) const;
};

enum class Layout { input_major, output_major };  // source is [k, n] as in the original, or [n, k] as wte is

PackedMatrix pack(const float* source, int k, int n, Layout layout, ThreadPool& pool);

}  // namespace gpt2lab
