// What callers say about draws, as flat arrays: checked here, so that nothing behind can read beyond its memory.
//
// Knows nothing of Python; bindings/engine.cpp brings the arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "stepper.h"

namespace gpt2lab {

// Something about a draw is wrong: an argument, or the logits it is to be made from.
struct DrawError : std::domain_error {
  using std::domain_error::domain_error;
};

void raise_if_failed(DrawStatus status, std::size_t row);

// Arguments of n draws; history and biases of draw i lie at offsets[i] … offsets[i + 1].
struct DrawArguments {
  std::span<const double> params;          // [n, SamplingParams::kCount]
  std::span<const std::uint64_t> streams;  // [n, 3] seed, stream, position
  std::span<const std::int32_t> history;
  std::span<const std::int64_t> history_offsets;  // [n + 1]
  std::span<const std::int32_t> bias_ids;
  std::span<const double> bias_values;
  std::span<const std::int64_t> bias_offsets;  // [n + 1]
};

// Throws DrawError. The draws point into the arguments' memory.
std::vector<Draw> checked_draws(const DrawArguments& arguments, std::size_t n, int n_vocab);

// Chains of draws behind feeds, with the memory that their results need.
struct Chains {
  // Draws counts[i] times behind feeds[i] with the top[i] likeliest tokens beside each draw. Throws DrawError.
  Chains(const std::vector<Draw>& draws, const std::vector<Feed>& feeds, std::span<const std::int32_t> counts,
         std::span<const std::int32_t> top, int n_vocab);
  Chains(const Chains&) = delete;  // `chains` points into the others
  Chains& operator=(const Chains&) = delete;

  std::vector<Chain> chains;
  std::vector<DrawResult> results;
  std::vector<std::int32_t> top_ids;
  std::vector<float> top_logprobs;
};

}  // namespace gpt2lab
