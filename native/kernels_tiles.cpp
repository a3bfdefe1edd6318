#include "tile_kernels.h"
#include "tiles.inl"

namespace gpt2lab {

const TileKernels& amx_tile_kernels() {
  static constexpr TileKernels table{pack_tiles<false>, pack_tiles<true>, multiply_tiles, gelu_gradient_rounded,
                                     add_rows,          cross_entropy,    round_scaled};
  return table;
}

}  // namespace gpt2lab
