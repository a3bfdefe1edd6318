#include "draw_arguments.h"

#include <cmath>
#include <string>

namespace gpt2lab {
namespace {

void check_offsets(std::span<const std::int64_t> offsets, std::size_t n, std::size_t size) {
  bool good = offsets.size() == n + 1 && offsets[0] == 0 && offsets[n] == std::int64_t(size);
  for (std::size_t i = 0; good && i < n; ++i) good = offsets[i] <= offsets[i + 1];
  if (!good) throw DrawError("offsets must rise from 0 to the number of values");
}

void check_ids(std::span<const std::int32_t> ids, int n_vocab) {
  for (const std::int32_t id : ids)
    if (id < 0 || id >= n_vocab)
      throw DrawError("token id " + std::to_string(id) + " is not in the vocabulary of " + std::to_string(n_vocab));
}

void check_position(std::uint64_t position, std::size_t draws) {
  if (position + (draws > 0 ? draws - 1 : 0) > UINT32_MAX || position > UINT32_MAX)
    throw DrawError("positions must be below 2^32");
}

}  // namespace

void raise_if_failed(DrawStatus status, std::size_t row) {
  const std::string at = " in row " + std::to_string(row);
  if (status == DrawStatus::nan_logit) throw DrawError("a logit is NaN" + at);
  if (status == DrawStatus::infinite_logit) throw DrawError("a logit is +inf" + at);
  if (status == DrawStatus::no_candidate) throw DrawError("every logit is -inf" + at);
}

std::vector<Draw> checked_draws(const DrawArguments& a, std::size_t n, int n_vocab) {
  constexpr std::size_t kCount = SamplingParams::kCount;
  if (a.params.size() != n * kCount) throw DrawError("params must be [draws, " + std::to_string(kCount) + "]");
  if (a.streams.size() != n * 3) throw DrawError("streams must be [draws, 3]");
  check_offsets(a.history_offsets, n, a.history.size());
  check_offsets(a.bias_offsets, n, a.bias_ids.size());
  if (a.bias_ids.size() != a.bias_values.size()) throw DrawError("as many bias values as ids are needed");
  check_ids(a.history, n_vocab);
  check_ids(a.bias_ids, n_vocab);
  for (const double value : a.bias_values)
    if (!(value < HUGE_VAL)) throw DrawError("a bias must be finite or -inf, got " + std::to_string(value));

  std::vector<Draw> draws(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto params = SamplingParams::read(&a.params[i * kCount]);
    if (!params) throw DrawError("sampling parameters out of range");
    const std::uint64_t* s = &a.streams[i * 3];
    check_position(s[2], 1);
    const std::size_t h = a.history_offsets[i], b = a.bias_offsets[i];
    Draw& draw = draws[i];
    draw.params = *params;
    draw.seed = s[0], draw.stream = s[1], draw.position = std::uint32_t(s[2]);
    draw.history = {a.history.data() + h, std::size_t(a.history_offsets[i + 1]) - h};
    draw.bias_ids = a.bias_ids.data() + b, draw.bias_values = a.bias_values.data() + b;
    draw.bias_size = std::size_t(a.bias_offsets[i + 1]) - b;
  }
  return draws;
}

Chains::Chains(const std::vector<Draw>& draws, const std::vector<Feed>& feeds, std::span<const std::int32_t> counts,
               std::span<const std::int32_t> top, int n_vocab)
    : chains(draws.size()) {
  if (counts.size() != draws.size() || top.size() != draws.size() || feeds.size() != draws.size())
    throw DrawError("as many counts and tops as draws are needed");
  std::size_t total = 0, top_total = 0;
  for (std::size_t i = 0; i < chains.size(); ++i) {
    if (counts[i] < 0 || counts[i] > feeds[i].count)
      throw DrawError(std::to_string(counts[i]) + " draws behind " + std::to_string(feeds[i].count) + " tokens");
    if (top[i] < 0 || top[i] > n_vocab)
      throw DrawError("the " + std::to_string(top[i]) + " likeliest of " + std::to_string(n_vocab) + " tokens");
    check_position(draws[i].position, counts[i]);
    total += counts[i];
    top_total += std::size_t(counts[i]) * top[i];
  }
  results.resize(total);
  top_ids.resize(top_total);
  top_logprobs.resize(top_total);
  total = top_total = 0;
  for (std::size_t i = 0; i < chains.size(); ++i) {
    chains[i].first = draws[i];
    chains[i].count = counts[i];
    if (counts[i] > 0) chains[i].guesses = feeds[i].tokens + (feeds[i].count - counts[i]) + 1;
    chains[i].results = results.data() + total;
    chains[i].top = {top[i], top_ids.data() + top_total, top_logprobs.data() + top_total};
    total += counts[i];
    top_total += std::size_t(counts[i]) * top[i];
  }
}

}  // namespace gpt2lab
