#include "engine_arguments.h"

#include <cstddef>
#include <stdexcept>
#include <unordered_set>

namespace gpt2lab {

Shape checked_shape(const Shape& s) {
  constexpr int kMost = 1 << 24;  // a size times a small number fits an int
  if (s.n_embd > kMost || s.n_inner > 4 * kMost || s.n_ctx > kMost || s.n_vocab > 1 << 30)
    throw std::invalid_argument("model shape too large");
  if (s.n_vocab < 1 || s.n_ctx < 1 || s.n_embd < 1 || s.n_head < 1 || s.n_layer < 1 || s.n_inner < 1 ||
      s.n_embd % s.n_head != 0)
    throw std::invalid_argument("impossible model shape");
  return s;
}

int default_inner(int n_embd) { return n_embd < 1 << 24 ? 4 * n_embd : n_embd; }

Activation checked_activation(const std::string& name) {
  if (name == "gelu_new") return Activation::gelu_new;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  if (name == "silu") return Activation::silu;
  throw std::invalid_argument("no activation '" + name + "'");
}

Precision checked_precision(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "int8") return Precision::int8;
  if (name == "int4") return Precision::int4;
  throw std::invalid_argument("no precision '" + name + "'");
}

KVPrecision checked_kv_precision(const std::string& name) {
  if (name == "float32") return KVPrecision::float32;
  if (name == "float16") return KVPrecision::float16;
  if (name == "bfloat16") return KVPrecision::bfloat16;
  if (name == "int8") return KVPrecision::int8;
  throw std::invalid_argument("no precision '" + name + "' for keys and values");
}

void check_ids(std::span<const std::int32_t> ids, int n_vocab) {
  for (const std::int32_t id : ids)
    if (id < 0 || id >= n_vocab)
      throw std::out_of_range("token id " + std::to_string(id) + " is not in the vocabulary of " +
                              std::to_string(n_vocab));
}

std::vector<Feed> checked_feeds(Transformer& model, const Shape& shape, std::span<const std::int32_t> sequences,
                                std::span<const std::int32_t> tokens, std::span<const std::int32_t> counts) {
  if (sequences.size() != counts.size()) throw std::invalid_argument("as many counts as sequences are needed");
  if (!model.weights.complete()) throw std::invalid_argument("the engine lacks some of its weights");
  std::vector<Feed> feeds;
  std::unordered_set<int> seen;
  std::size_t next = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const int sequence = sequences[i], count = counts[i];
    const int length = model.cache().length(sequence);
    if (!seen.insert(sequence).second)
      throw std::invalid_argument("sequence " + std::to_string(sequence) + " is fed twice in one call");
    if (count < 1) throw std::invalid_argument("each sequence needs at least one token");
    if (std::size_t(count) > tokens.size() - next) throw std::invalid_argument("fewer tokens than counts add up to");
    if (count > shape.n_ctx - length)
      throw std::overflow_error(std::to_string(length) + " tokens and " + std::to_string(count) +
                                " more are over the context of " + std::to_string(shape.n_ctx));
    feeds.push_back({sequence, tokens.data() + next, count, 0});
    next += count;
  }
  if (next != tokens.size()) throw std::invalid_argument("more tokens than the counts add up to");
  check_ids(tokens, shape.n_vocab);
  return feeds;
}

}  // namespace gpt2lab
