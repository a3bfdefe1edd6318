// Logits in, token out: the stages of sampling.py in the same order and, like it, in float64.
//
// logit bias → penalties → temperature → top-k → top-p → min-p → draw. Knows nothing of sequences or text.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels.h"

namespace gpt2lab {

// Ranges have been checked by sampling.SamplingParams.
struct SamplingParams {
  double temperature = 1.0;  // 0 takes the largest logit, the lowest id on ties
  std::int64_t top_k = 0;    // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
};

struct Draw {
  SamplingParams params;
  std::uint64_t seed = 0, stream = 0;
  std::uint32_t position = 0;
  const std::int32_t* history = nullptr;  // tokens that the penalties speak of
  std::size_t history_size = 0;
  const std::int32_t* bias_ids = nullptr;
  const double* bias_values = nullptr;
  std::size_t bias_size = 0;
};

enum class DrawStatus { ok, nan_logit, infinite_logit, no_candidate };

struct DrawResult {
  DrawStatus status = DrawStatus::ok;
  std::int32_t token = 0;
  float logprob = 0;  // natural logarithm of the token's probability under the logits as they came
};

// One per thread; keeps its scratch memory between draws.
class Sampler {
 public:
  explicit Sampler(const Kernels& kernels) : kernels_(&kernels) {}

  // Takes all memory that draws from n_vocab logits need, so that they throw nothing.
  void reserve(int n_vocab);

  DrawResult draw(const float* logits, int n_vocab, const Draw& draw);

 private:
  void apply_penalties(const Draw& draw);
  void keep_top_k(std::int64_t k);
  double keep_top_p(double p, double total);
  std::int32_t pick(double target) const;

  const Kernels* kernels_;
  std::vector<double> scores_;         // per token: logit, then logit / temperature ≤ 0; -inf once it is cut
  std::vector<double> probabilities_;  // per token, not normalised; the largest is 1
  std::vector<double> ordered_;
  std::vector<std::pair<double, std::int32_t>> ranked_;
  std::vector<std::int32_t> counts_;   // per token, zero between draws
};

}  // namespace gpt2lab
