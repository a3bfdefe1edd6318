// The kernels, written once and compiled once per instruction set (kernels_*.cpp).
//
// Everything sits in an unnamed namespace and nothing of the standard library's templates is used: an inline function
// shared with other files could be linked in its AVX-512 form and run on a CPU that lacks it.
#include "attention.inl"
#include "kernels.h"
#include "products.inl"
#include "quantized.inl"
#include "reductions.inl"
#include "sampling.inl"

namespace gpt2lab {
namespace {

void product(const Product& p, int first_tile, int last_tile) {
  switch (p.precision) {
    case Precision::float32: return float_product<float>(p, first_tile, last_tile);
    case Precision::bfloat16: return float_product<BFloat16>(p, first_tile, last_tile);
    case Precision::q8_0: return quantized_product<Precision::q8_0>(p, first_tile, last_tile);
    case Precision::q4_0: return quantized_product<Precision::q4_0>(p, first_tile, last_tile);
  }
}

}  // namespace

const Kernels& GPT2LAB_KERNELS() {
  static constexpr Kernels table{GPT2LAB_KERNELS_NAME, kRows,      product,    quantize, attention,
                                 to_halves,            layer_norm, exp_all,    sum_exp,
                                 {largest<float>, at_least<float>, sum_strides<float>},
                                 {largest<double>, at_least<double>, sum_strides<double>}};
  return table;
}

}  // namespace gpt2lab
