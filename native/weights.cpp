#include "weights.h"

#include <cstring>
#include <new>

namespace gpt2lab {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

// Places the tensors twice: first to compute how much memory they need, then in that memory.
Weights::Weights(const Shape& shape, Precision precision) : shape_(shape), precision_(precision) {
  place(nullptr);
  memory_ = Array<std::byte>(used_);
  place(memory_.data());
  missing_ = tensors_.size();
}

void Weights::place(std::byte* memory) {
  tensors_.clear();
  layers_.clear();
  next_ = memory;
  used_ = 0;
  const int n = shape_.n_embd;
  wte_ = place_matrix("wte.weight", shape_.n_vocab, n, n, shape_.n_vocab);
  wpe_ = place_vector("wpe.weight", shape_.n_ctx, n);
  for (int i = 0; i < shape_.n_layer; ++i) {
    const std::string layer = "h." + std::to_string(i) + ".";
    layers_.emplace_back();
    layers_.back().ln_1 = place_norm(layer + "ln_1");
    layers_.back().attn_qkv = place_linear(layer + "attn.c_attn", n, 3 * n);
    layers_.back().attn_proj = place_linear(layer + "attn.c_proj", n, n);
    layers_.back().ln_2 = place_norm(layer + "ln_2");
    layers_.back().mlp_fc = place_linear(layer + "mlp.c_fc", n, shape_.n_inner);
    layers_.back().mlp_proj = place_linear(layer + "mlp.c_proj", shape_.n_inner, n);
  }
  ln_f_ = place_norm("ln_f");
  head_ = shape_.tied ? wte_ : place_matrix("lm_head.weight", shape_.n_vocab, n, n, shape_.n_vocab);
}

std::byte* Weights::take(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (bytes > (SIZE_MAX >> 2) - used_) throw std::bad_alloc();
  used_ += bytes;
  if (next_) next_ += bytes;
  return next_ ? next_ - bytes : nullptr;
}

// Places a vector, padded with zeros to whole tiles for the kernels.
float* Weights::place_vector(const std::string& name, int rows, int columns) {
  const std::size_t size = rows > 0 ? std::size_t(rows) * columns : columns;
  auto* values = reinterpret_cast<float*>(take((size + kTile - 1) / kTile * kTile * sizeof(float)));
  tensors_.push_back({name, rows, columns, {}, values});
  return values;
}

PackedMatrix Weights::place_matrix(const std::string& name, int rows, int columns, int k, int n) {
  PackedMatrix matrix{precision_, nullptr, k, n};
  matrix.tiles = take(matrix.bytes());
  tensors_.push_back({name, rows, columns, matrix, nullptr});
  return matrix;
}

Linear Weights::place_linear(const std::string& name, int k, int n) {
  const PackedMatrix weight = place_matrix(name + ".weight", k, n, k, n);
  return {weight, place_vector(name + ".bias", 0, n)};
}

Norm Weights::place_norm(const std::string& name) {
  const float* gain = place_vector(name + ".weight", 0, shape_.n_embd);
  return {gain, place_vector(name + ".bias", 0, shape_.n_embd)};
}

Weights::Tensor* Weights::find(const std::string& name) {
  for (Tensor& tensor : tensors_)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

bool Weights::set(Tensor& tensor, const float* source, ThreadPool& pool) {
  if (tensor.values) {
    const std::size_t size = tensor.rows > 0 ? std::size_t(tensor.rows) * tensor.columns : tensor.columns;
    std::memcpy(tensor.values, source, size * sizeof(float));
  } else {
    const bool embeds = tensor.matrix.tiles == wte_.tiles || tensor.matrix.tiles == head_.tiles;
    const Layout layout = embeds ? Layout::output_major : Layout::input_major;
    if (!pack(source, layout, tensor.matrix, pool)) return false;
  }
  mark_set(tensor);
  return true;
}

bool Weights::set(Tensor& tensor, const Integers& source, ThreadPool& pool) {
  if (!pack(source, tensor.matrix, pool)) return false;
  mark_set(tensor);
  return true;
}

void Weights::mark_set(Tensor& tensor) {
  missing_ -= !tensor.set;
  tensor.set = true;
}

void Weights::mark_all_set() {
  for (Tensor& tensor : tensors_) tensor.set = true;
  missing_ = 0;
}

// Runs eight chains of FNV-1a over 64-bit words, which the CPU computes in parallel, then one over their ends.
std::uint64_t checksum(const void* bytes, std::size_t size) {
  constexpr std::uint64_t kPrime = 0x100000001b3, kStart = 0xcbf29ce484222325;
  constexpr std::size_t kChains = 8, kStep = kChains * sizeof(std::uint64_t);
  const auto* p = static_cast<const unsigned char*>(bytes);
  std::uint64_t chains[kChains], words[kChains];
  for (std::uint64_t& h : chains) h = kStart;
  const auto mix = [](std::uint64_t h, std::uint64_t word) {
    h = (h ^ word) * kPrime;
    return h ^ h >> 32;
  };
  for (std::size_t i = 0; i + kStep <= size; i += kStep) {
    std::memcpy(words, p + i, kStep);
    for (std::size_t c = 0; c < kChains; ++c) chains[c] = mix(chains[c], words[c]);
  }
  std::uint64_t h = mix(kStart, size);
  for (const std::uint64_t chain : chains) h = mix(h, chain);
  for (std::size_t i = size / kStep * kStep; i < size; ++i) h = mix(h, p[i]);
  return h;
}

}  // namespace gpt2lab
