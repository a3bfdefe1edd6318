#include "sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "philox.h"

namespace gpt2lab {
namespace {

constexpr double kCut = -std::numeric_limits<double>::infinity();
constexpr int kStride = 512;              // candidates summed together when one is picked
constexpr std::size_t kBuckets = 2048;    // of scores, for top-p
constexpr double kBucketsPerNat = 32;

template <typename Float>
DrawStatus check(const Float* logits, int n) {
  bool nan = false;
  Float largest = -std::numeric_limits<Float>::infinity();
  for (int i = 0; i < n; ++i) {  // without branches, for the compiler to vectorise
    nan |= logits[i] != logits[i];
    largest = logits[i] > largest ? logits[i] : largest;
  }
  if (nan) return DrawStatus::nan_logit;
  if (largest == std::numeric_limits<Float>::infinity()) return DrawStatus::infinite_logit;
  return largest > -std::numeric_limits<Float>::infinity() ? DrawStatus::ok : DrawStatus::no_candidate;
}

template <typename Float>
Float largest_of(const Float* x, int n) {
  Float largest = x[0];
  for (int i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

}  // namespace

void Sampler::reserve(int n_vocab) {
  scores_.reserve(n_vocab);
  probabilities_.reserve(n_vocab);
  ordered_.reserve(n_vocab);
  ranked_.reserve(n_vocab);
  counts_.resize(n_vocab);
}

DrawResult Sampler::draw(const float* logits, int n_vocab, const Draw& draw) {
  DrawResult result;
  result.status = check(logits, n_vocab);
  if (result.status != DrawStatus::ok) return result;

  scores_.assign(logits, logits + n_vocab);
  for (std::size_t i = 0; i < draw.bias_size; ++i) scores_[draw.bias_ids[i]] += draw.bias_values[i];
  apply_penalties(draw);
  result.status = check(scores_.data(), n_vocab);  // a bias may ban every token
  if (result.status != DrawStatus::ok) return result;

  const SamplingParams& params = draw.params;
  const double largest = largest_of(scores_.data(), n_vocab);
  if (params.temperature == 0) {
    result.token = std::int32_t(std::find(scores_.begin(), scores_.end(), largest) - scores_.begin());
  } else {
    // Differences from the largest are divided, so that no temperature overflows. A temperature of 1 leaves the logits
    // as they are until top-k has compared them: differences of small numbers from a large one may be equal.
    const bool tempered = params.temperature != 1;
    if (tempered)
      for (double& s : scores_) s = (s - largest) / params.temperature;
    keep_top_k(params.top_k);
    if (!tempered)
      for (double& s : scores_) s -= largest;
    probabilities_.resize(n_vocab);
    double total = kernels_->exp(scores_.data(), n_vocab, probabilities_.data());
    total = keep_top_p(params.top_p, total);
    if (params.min_p > 0) {
      total = 0;
      for (double& p : probabilities_) {
        p = p < params.min_p ? 0 : p;
        total += p;
      }
    }
    result.token = pick(philox_uniform(draw.seed, draw.stream, draw.position) * total);
  }
  const double top = largest_of(logits, n_vocab);
  result.logprob = float(logits[result.token] - top - std::log(kernels_->exp_sum(logits, n_vocab, top)));
  return result;
}

// The first token at which the sum of probabilities, in the order of ids, is over `target`.
std::int32_t Sampler::pick(double target) const {
  const int n = int(probabilities_.size());
  std::int32_t last = 0;
  double below = 0;
  for (int begin = 0; begin < n; begin += kStride) {
    const int end = std::min(n, begin + kStride);
    double stride[4] = {};  // four chains of additions, to wait less for each
    for (int i = begin; i < end; ++i) stride[i % 4] += probabilities_[i];
    const double sum = (stride[0] + stride[1]) + (stride[2] + stride[3]);
    if (sum == 0) continue;
    if (below + sum <= target && end < n) {
      below += sum;
      last = end - 1;
      continue;
    }
    for (int i = begin; i < end; ++i) {
      if (probabilities_[i] == 0) continue;
      last = i;
      below += probabilities_[i];
      if (below > target) return last;
    }
  }
  while (probabilities_[last] == 0) --last;  // rounding has left `target` at the end: the last candidate
  return last;
}

void Sampler::apply_penalties(const Draw& draw) {
  const SamplingParams& params = draw.params;
  if (params.repetition_penalty == 1 && params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  for (std::size_t i = 0; i < draw.history_size; ++i) ++counts_[draw.history[i]];
  for (std::size_t i = 0; i < draw.history_size; ++i) {
    std::int32_t& count = counts_[draw.history[i]];
    if (count == 0) continue;  // its first occurrence has dealt with it
    double& s = scores_[draw.history[i]];
    s = s > 0 ? s / params.repetition_penalty : s * params.repetition_penalty;
    s = s - params.presence_penalty - params.frequency_penalty * count;
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

// Candidates fall into buckets by their score; the bucket in which their sum, from the most likely on, crosses p is the
// only one that has to be sorted. Returns the sum of what is kept.
double Sampler::keep_top_p(double p, double total) {
  if (p >= 1) return total;
  const auto bucket_of = [](double score) { return std::size_t(std::min(score * -kBucketsPerNat, kBuckets - 1.0)); };
  std::array<double, kBuckets> mass{};
  for (std::size_t i = 0; i < scores_.size(); ++i)
    if (probabilities_[i] > 0) mass[bucket_of(scores_[i])] += probabilities_[i];
  const double target = p * total;
  std::size_t crossing = 0;
  double kept = 0;
  while (crossing + 1 < kBuckets && kept + mass[crossing] < target) kept += mass[crossing++];

  ranked_.clear();
  for (std::size_t i = 0; i < scores_.size(); ++i) {
    if (probabilities_[i] == 0) continue;
    const std::size_t bucket = bucket_of(scores_[i]);
    if (bucket == crossing) ranked_.emplace_back(-probabilities_[i], std::int32_t(i));  // lower id first on ties
    if (bucket >= crossing) probabilities_[i] = 0;
  }
  std::sort(ranked_.begin(), ranked_.end());
  for (const auto& [negative, id] : ranked_) {
    if (kept > 0 && kept >= target) break;
    probabilities_[id] = -negative;
    kept -= negative;
  }
  return kept;
}

}  // namespace gpt2lab
