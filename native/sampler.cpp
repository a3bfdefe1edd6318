#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "philox.h"

namespace gpt2lab {
namespace {

constexpr double kCut = -std::numeric_limits<double>::infinity();

DrawStatus check(const std::vector<double>& scores) {
  bool any = false;
  for (const double s : scores) {
    if (std::isnan(s)) return DrawStatus::nan_logit;
    if (s == std::numeric_limits<double>::infinity()) return DrawStatus::infinite_logit;
    any = any || s != kCut;
  }
  return any ? DrawStatus::ok : DrawStatus::no_candidate;
}

std::int32_t argmax(const std::vector<double>& scores) {
  return std::int32_t(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

double log_sum_exp(const float* logits, int n) {
  const double top = *std::max_element(logits, logits + n);
  double total = 0;
  for (int i = 0; i < n; ++i) total += std::exp(logits[i] - top);
  return top + std::log(total);
}

}  // namespace

DrawResult Sampler::draw(const float* logits, int n_vocab, const Draw& draw) {
  scores_.assign(logits, logits + n_vocab);
  DrawResult result;
  result.status = check(scores_);
  if (result.status != DrawStatus::ok) return result;

  for (std::size_t i = 0; i < draw.bias_size; ++i) scores_[draw.bias_ids[i]] += draw.bias_values[i];
  apply_penalties(draw);
  result.status = check(scores_);  // a bias may ban every token
  if (result.status != DrawStatus::ok) return result;

  const SamplingParams& params = draw.params;
  const double top = *std::max_element(scores_.begin(), scores_.end());
  if (params.temperature == 0) {
    result.token = argmax(scores_);
  } else {
    // Differences from the largest are divided, so that no temperature overflows.
    for (double& s : scores_) s = (s - top) / params.temperature;
    keep_top_k(params.top_k);
    probabilities_.resize(n_vocab);
    for (int i = 0; i < n_vocab; ++i) probabilities_[i] = scores_[i] == kCut ? 0.0 : std::exp(scores_[i]);
    keep_top_p(params.top_p);
    for (double& p : probabilities_)  // the largest probability is exp(0) = 1
      if (p < params.min_p) p = 0;
    double total = 0;
    for (const double p : probabilities_) total += p;
    const double target = philox_uniform(draw.seed, draw.stream, draw.position) * total;
    double below = 0;
    for (int i = 0; i < n_vocab; ++i) {
      if (probabilities_[i] == 0) continue;
      result.token = i;  // stays at the last candidate should rounding leave `target` beyond the sum
      below += probabilities_[i];
      if (below > target) break;
    }
  }
  result.logprob = float(logits[result.token] - log_sum_exp(logits, n_vocab));
  return result;
}

void Sampler::apply_penalties(const Draw& draw) {
  const SamplingParams& params = draw.params;
  if (params.repetition_penalty == 1 && params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  counts_.resize(scores_.size());
  for (std::size_t i = 0; i < draw.history_size; ++i) ++counts_[draw.history[i]];
  for (std::size_t i = 0; i < draw.history_size; ++i) {
    std::int32_t& count = counts_[draw.history[i]];
    if (count == 0) continue;  // its first occurrence has dealt with it
    double& s = scores_[draw.history[i]];
    s = s > 0 ? s / params.repetition_penalty : s * params.repetition_penalty;
    s -= params.presence_penalty + params.frequency_penalty * count;
    count = 0;
  }
}

void Sampler::keep_top_k(std::int64_t k) {
  if (k == 0 || k >= std::int64_t(scores_.size())) return;
  ordered_ = scores_;
  std::nth_element(ordered_.begin(), ordered_.begin() + (k - 1), ordered_.end(), std::greater<>());
  const double smallest = ordered_[k - 1];
  for (double& s : scores_)
    if (s < smallest) s = kCut;  // ties with the k-th stay
}

void Sampler::keep_top_p(double p) {
  if (p >= 1) return;
  ranked_.clear();
  double total = 0;
  for (std::size_t i = 0; i < probabilities_.size(); ++i) {
    total += probabilities_[i];
    if (probabilities_[i] > 0) ranked_.emplace_back(-probabilities_[i], std::int32_t(i));  // sorts by id on ties
  }
  // The nucleus is usually small: sort more and more of the candidates until they reach p.
  const double target = p * total;
  double before = 0;  // the probability of all tokens ranked above the next one
  std::size_t kept = 0, sorted = 0;
  while (sorted < ranked_.size()) {
    const std::size_t end = std::min(ranked_.size(), std::max<std::size_t>(64, sorted * 8));
    std::partial_sort(ranked_.begin() + sorted, ranked_.begin() + end, ranked_.end());
    sorted = end;
    while (kept < sorted && (kept == 0 || before < target)) before -= ranked_[kept++].first;
    if (kept < sorted) break;
  }
  for (std::size_t i = kept; i < ranked_.size(); ++i) probabilities_[ranked_[i].second] = 0;
}

}  // namespace gpt2lab
