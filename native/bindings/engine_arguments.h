// Checks of the arguments of the class Engine. They know nothing of Python, and throw std::invalid_argument unless
// stated otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "transformer.h"

namespace gpt2lab {

Shape checked_shape(const Shape& shape);

// Returns the width of the MLP's inner layer in the original; checked_shape() refuses an n_embd that is too large.
int default_inner(int n_embd);

Activation checked_activation(const std::string& name);
Precision checked_precision(const std::string& name);
KVPrecision checked_kv_precision(const std::string& name);

// Throws std::out_of_range unless all ids are in the vocabulary.
void check_ids(std::span<const std::int32_t> ids, int n_vocab);

// Returns the feeds of counts[i] of `tokens` to sequences[i], without outputs, as Transformer::forward requires them.
// Throws std::overflow_error where the context is too short, std::out_of_range for an unknown sequence or token.
std::vector<Feed> checked_feeds(Transformer& model, const Shape& shape, std::span<const std::int32_t> sequences,
                                std::span<const std::int32_t> tokens, std::span<const std::int32_t> counts);

}  // namespace gpt2lab
