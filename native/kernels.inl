// The kernels, written once and compiled once per instruction set (kernels_*.cpp).
//
// Everything is in an unnamed namespace and uses no templates of the standard library: the linker could keep the
// AVX-512 form of an inline function shared with other files, which would then run on a CPU that lacks AVX-512.
#include "attention.inl"
#include "gelu.inl"
#include "kernels.h"
#include "matmul.inl"
#include "products.inl"
#include "quantized.inl"
#if defined(__AMX_BF16__)
#include "matrix_bfloat16.inl"
#endif
#include "reductions.inl"
#include "sampling.inl"
#include "softmax.inl"

namespace gpt2lab {
namespace {

#if defined(__AMX_BF16__)
constexpr bool kMatrixUnit = true;

void product_of_bfloat16(const Product& p, int first_tile, int last_tile) {
  switch (p.precision) {
    case Precision::q8_0: return bfloat16_product<Precision::q8_0>(p, first_tile, last_tile);
    case Precision::q4_0: return bfloat16_product<Precision::q4_0>(p, first_tile, last_tile);
    default: return bfloat16_product<Precision::bfloat16>(p, first_tile, last_tile);
  }
}
#else
constexpr bool kMatrixUnit = false;

void product_of_bfloat16(const Product&, int, int) {}
void round_inputs(const float*, int, int, BFloat16Block*) {}
#endif

bool prompts_apart(Precision precision) { return kMatrixUnit && is_quantized(precision); }

// Whether a matrix unit multiplies inputs and weights as bfloat16.
bool rounds_inputs(Precision precision, bool prompt) {
  return kMatrixUnit && (precision == Precision::bfloat16 || (is_quantized(precision) && prompt));
}

std::size_t prepared_block(Precision precision, bool prompt) {
  if (rounds_inputs(precision, prompt)) return sizeof(BFloat16Block);
  return is_quantized(precision) ? sizeof(ActivationBlock) : 0;
}

void prepare(const float* x, int k, Precision precision, bool prompt, int row, std::byte* group) {
  if (rounds_inputs(precision, prompt)) round_inputs(x, k, row, reinterpret_cast<BFloat16Block*>(group));
  else quantize(x, k, zero_point(precision), row, reinterpret_cast<ActivationBlock*>(group));
}

void product(const Product& p, int first_tile, int last_tile) {
  if (rounds_inputs(p.precision, p.prompt)) return product_of_bfloat16(p, first_tile, last_tile);
  switch (p.precision) {
    case Precision::float32: return float_product<float>(p, first_tile, last_tile);
    case Precision::bfloat16: return float_product<BFloat16>(p, first_tile, last_tile);
    case Precision::q8_0: return quantized_product<Precision::q8_0>(p, first_tile, last_tile);
    case Precision::q4_0: return quantized_product<Precision::q4_0>(p, first_tile, last_tile);
  }
}

}  // namespace

const Kernels& GPT2LAB_KERNELS() {
  // clang-format off
  static constexpr Kernels table{
      GPT2LAB_KERNELS_NAME, kRows, kPanelColumns, kEmulatesFma, product, matmul_part, pack_panels<kRows>, pack_panels<kPanelColumns>,
      gelu_all, gelu_gradient, softmax_row, softmax_again, softmax_gradient,
      prompts_apart, prepared_block, prepare, attention, to_halves, layer_norm, layer_norm_gradient,
      exp_all, sum_exp,
      {largest<float>, at_least<float>, sum_strides<float>},
      {largest<double>, at_least<double>, sum_strides<double>}};
  // clang-format on
  return table;
}

}  // namespace gpt2lab
