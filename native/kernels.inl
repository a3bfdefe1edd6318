// The kernels, written once and compiled once per instruction set (kernels_*.cpp).
//
// Everything is in an unnamed namespace and uses no templates of the standard library: the linker could keep the
// AVX-512 form of an inline function shared with other files, which would then run on a CPU that lacks AVX-512.
#include "activations.inl"
#include "attention.inl"
#include "gelu.inl"
#include "int8_attention.inl"
#include "integers.inl"
#include "kernels.h"
#include "matmul.inl"
#include "products.inl"
#if defined(__AMX_BF16__)
#include "bfloat16_attention.inl"
#include "matrix_bfloat16.inl"
#endif
#include "reductions.inl"
#include "sampling.inl"
#include "sequence_attention.inl"
#include "softmax.inl"

namespace gpt2lab {
namespace {

#if defined(__AMX_BF16__)
constexpr bool kMatrixUnit = true;
#else
constexpr bool kMatrixUnit = false;

void bfloat16_product(const Product&, int, int) {}
void round_inputs(const float*, int, int, BFloat16Block*) {}
bool pack_bfloat16(const float*, int, int, std::size_t, BFloat16*) { return true; }
#endif

std::size_t packed_attention_bytes(KVPrecision format, int head_dim) {
  if (format == KVPrecision::int8) return Int8Rows::bytes(head_dim);
#if defined(__AMX_BF16__)
  if (format == KVPrecision::bfloat16) return BFloat16Rows::bytes(head_dim);
#endif
  return 0;
}

void packed_attention(const PackedAttention& a) {
#if defined(__AMX_BF16__)
  if (a.format == KVPrecision::bfloat16) return attend_packed<BFloat16Rows>(a);
#endif
  attend_packed<Int8Rows>(a);
}

std::size_t prepared_bytes(Precision precision, int k) {
  if (is_integer(precision)) return block_count(k) * sizeof(ActivationBlock);
  return kMatrixUnit && precision == Precision::bfloat16 ? bfloat16_blocks(k) * sizeof(BFloat16Block) : 0;
}

bool finishes_blocks(Precision precision) { return kMatrixUnit && precision == Precision::bfloat16; }

bool takes_parts(Precision precision) {
  if (precision == Precision::int8) return kMatrixUnit || kCopiesInt8;
  return precision == Precision::int4 || (kMatrixUnit && precision == Precision::bfloat16);
}

void prepare(const float* x, int k, Precision precision, int row, std::byte* group) {
  auto* blocks = reinterpret_cast<ActivationBlock*>(group);
  if (precision == Precision::int8) round_row<Precision::int8>(x, k, row, blocks);
  else if (precision == Precision::int4) round_row<Precision::int4>(x, k, row, blocks);
  else round_inputs(x, k, row, reinterpret_cast<BFloat16Block*>(group));
}

void product(const Product& p, int first_tile, int last_tile) {
  switch (p.precision) {
    case Precision::float32: return float_product<float>(p, first_tile, last_tile);
    case Precision::bfloat16:
      return kMatrixUnit ? bfloat16_product(p, first_tile, last_tile)
                         : float_product<BFloat16>(p, first_tile, last_tile);
    case Precision::int8: return integer_product<Precision::int8>(p, first_tile, last_tile);
    case Precision::int4: return integer_product<Precision::int4>(p, first_tile, last_tile);
  }
}

}  // namespace

const Kernels& GPT2LAB_KERNELS() {
  // clang-format off
  static constexpr Kernels table{
      GPT2LAB_KERNELS_NAME, kRows, kPanelColumns, kEmulatesFma, product, matmul_part, pack_panels<kRows>, pack_panels<kPanelColumns>,
      activate, gelu_gradient, softmax_row, softmax_again, softmax_gradient,
      prepared_bytes, finishes_blocks, takes_parts, prepare, attention, sequence_attention, round_to<Half>, round_to<BFloat16>, pack_bfloat16, packed_attention_bytes,
      packed_attention, to_int8, four_to_int8, layer_norm, layer_norm_gradient,
      exp_all, sum_exp,
      {largest<float>, at_least<float>, sum_strides<float>},
      {largest<double>, at_least<double>, sum_strides<double>}};
  // clang-format on
  return table;
}

}  // namespace gpt2lab
