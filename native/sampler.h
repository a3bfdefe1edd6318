// The sampler: logits in, token out. It runs the stages of sampling/rules.py in the same order and makes their
// decisions in float64 too.
//
// logit bias → penalties → temperature → top-k → top-p → min-p → draw. The vocabulary is never sorted: a filter gathers
// the few ids that it may keep and works on them; without a filter, the sampler only sums stretches of the vocabulary.
// The sampler knows nothing of sequences or text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels.h"

namespace gpt2lab {

// The sampling parameters, as declared in sampling/declaration.py, which also checks the ranges and sets the order.
struct SamplingParams {
  double temperature = 1.0;  // 0: the largest logit, the lowest id on ties
  std::int64_t top_k = 0;    // 0: no limit
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;

  static constexpr std::size_t kCount = 7;

  // Reads kCount numbers; returns nothing if one is outside the range that the stages support.
  static std::optional<SamplingParams> read(const double* numbers);

  bool penalises() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
};

struct Tokens {
  const std::int32_t* ids = nullptr;
  std::size_t size = 0;
};

struct Draw {
  SamplingParams params;
  std::uint64_t seed = 0, stream = 0;
  std::uint32_t position = 0;
  Tokens history, recent;  // the penalties count the tokens of both
  const std::int32_t* bias_ids = nullptr;
  const double* bias_values = nullptr;
  std::size_t bias_size = 0;
};

enum class DrawStatus { ok, nan_logit, infinite_logit, no_candidate };

struct DrawResult {
  DrawStatus status = DrawStatus::ok;
  std::int32_t token = 0;
  float logprob = 0;  // natural logarithm of the token's probability under the original logits
};

// Room for the `size` likeliest tokens, likeliest first; among equals the lower id comes first.
struct TopTokens {
  int size = 0;
  std::int32_t* ids = nullptr;
  float* logprobs = nullptr;
};

// A sampler for one thread; keeps its scratch memory between draws.
class Sampler {
 public:
  explicit Sampler(const Kernels& kernels) : kernels_(&kernels) {}

  // Allocates all memory that draws from n_vocab logits need, so that draw() does not throw.
  void reserve(int n_vocab);

  // Draws a token and fills `top`, but only if the status is ok. `top.size` is at most n_vocab.
  DrawResult draw(const float* logits, int n_vocab, const Draw& draw, const TopTokens& top = {});

 private:
  // The original logits (float), or the logits with biases and penalties applied (double).
  template <typename Real>
  struct Scores {
    const Real* values;
    const Real* bins;  // from ScoreKernels::largest
    int n;
    Real largest;
    const ScoreKernels<Real>& kernels;
  };
  struct Ranked {
    double score;  // tempered
    double probability;
    int index;  // into the candidates
  };

  DrawStatus adjust(const float* logits, int n_vocab, const Draw& draw);
  void penalise(const SamplingParams& params, const Tokens& tokens);
  void write_top(const Scores<float>& scores, double log_sum, const TopTokens& top);
  template <typename Real>
  std::int32_t choose(const Scores<Real>& scores, const Draw& draw);
  template <typename Real>
  std::int32_t pick_from_all(const Scores<Real>& scores, double temperature, double random);
  template <typename Real>
  double weigh(const Scores<Real>& scores, double temperature);
  template <typename Real>
  double gather(const Scores<Real>& scores, double temperature, Real threshold);
  template <typename Real>
  double gather_top_k(const Scores<Real>& scores, double temperature, int k);
  template <typename Real>
  double gather_top_p(const Scores<Real>& scores, double temperature, double p);
  template <typename Real>
  double gather_min_p(const Scores<Real>& scores, double temperature, double p);
  template <typename Real, typename Function>
  void gather_likeliest(const Scores<Real>& scores, int k, Real lowest, const Function& key);
  template <typename Real>
  Real guess_of_likeliest(const Scores<Real>& scores, int k);
  template <typename Real>
  void keep_top_p(const Scores<Real>& scores, double temperature, double target);
  std::int32_t pick(double random);
  int last_candidate() const;

  template <typename T>
  using Scratch = std::unique_ptr<T[]>;

  const Kernels* kernels_;
  int reserved_ = 0;
  int count_ = 0;                  // number of candidates
  Scratch<std::int32_t> ids_;      // ids of the candidates, ascending
  Scratch<double> probabilities_;  // per candidate, not normalised; 0 once the candidate is cut
  Scratch<double> keys_;           // per candidate: its exponent; or sums of strides
  Scratch<double> scores_;         // per token: the logit with biases and penalties
  Scratch<float> logit_bins_;
  Scratch<double> score_bins_, order_;
  Scratch<Ranked> ranked_;
  std::vector<std::int32_t> occurrences_;  // per token: its count in the history; zero between draws
};

}  // namespace gpt2lab
