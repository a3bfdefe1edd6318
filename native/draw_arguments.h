// The callers' arguments of draws, as flat arrays: checked here, so that no later code reads beyond its memory.
//
// This file knows nothing of Python; bindings/engine.cpp passes the arrays in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "stepper.h"

namespace gpt2lab {

// An error in a draw's arguments or in the logits that it draws from.
struct DrawError : std::domain_error {
  using std::domain_error::domain_error;
};

void raise_if_failed(DrawStatus status, std::size_t row);

// The arguments of n draws; history and biases of draw i lie at offsets[i] … offsets[i + 1].
struct DrawArguments {
  std::span<const double> params;          // [n, SamplingParams::kCount]
  std::span<const std::uint64_t> streams;  // [n, 3] seed, stream, position
  std::span<const std::int32_t> history;
  std::span<const std::int64_t> history_offsets;  // [n + 1]
  std::span<const std::int32_t> bias_ids;
  std::span<const double> bias_values;
  std::span<const std::int64_t> bias_offsets;  // [n + 1]
};

// Checks the arguments and returns n draws, which point into the arguments' memory. Throws DrawError.
std::vector<Draw> checked_draws(const DrawArguments& arguments, std::size_t n, int n_vocab);

// Chains of draws that follow feeds, with the memory for their results.
struct Chains {
  // Prepares counts[i] draws after feeds[i], each with the top[i] likeliest tokens. Throws DrawError.
  Chains(const std::vector<Draw>& draws, const std::vector<Feed>& feeds, std::span<const std::int32_t> counts,
         std::span<const std::int32_t> top, int n_vocab);
  Chains(const Chains&) = delete;  // `chains` points into the other members
  Chains& operator=(const Chains&) = delete;

  std::vector<Chain> chains;
  std::vector<DrawResult> results;
  std::vector<std::int32_t> top_ids;
  std::vector<float> top_logprobs;
};

}  // namespace gpt2lab
