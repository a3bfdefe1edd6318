#include "sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <type_traits>

#include "philox.h"

namespace gpt2lab {
namespace {

constexpr int kBuckets = 2048;         // buckets of candidates by their scores, for top-p
constexpr double kBucketsPerNat = 32;  // at least
constexpr int kSample = 8;
constexpr int kSlack = 16;           // extra ids that the kernels may write
constexpr double kNothing = 1e-290;  // a stride whose sum is below this holds only impossible tokens
constexpr double kRounding = 1e-12;  // relative; top-p and min-p ignore differences that rounding may have made

template <typename Real>
constexpr Real kBanned = -std::numeric_limits<Real>::infinity();
template <typename Real>
constexpr Real kLowest = std::numeric_limits<Real>::lowest();  // of the scores that are not banned

int bin_count(int n) { return (n + kGroup - 1) / kGroup * kGroupBins; }

// The temperature, as in sampling/rules.py. It divides differences from the largest score, so that no temperature
// overflows. A temperature of 1 leaves the scores unchanged, because subtracting the largest could round two different
// scores to the same number.
struct Temper {
  double largest, temperature;
  double operator()(double score) const { return temperature == 1 ? score : (score - largest) / temperature; }
};

double scale_of(double temperature) { return 1 / std::max(temperature, std::numeric_limits<double>::min()); }

// Maps reals to integers, preserving their order.
template <typename Real>
auto to_ordinal(Real x) {
  using Int = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
  const Int bits = std::bit_cast<Int>(x);
  return bits >= 0 ? bits : std::numeric_limits<Int>::min() - bits;
}
template <typename Real, typename Int>
Real from_ordinal(Int i) {
  return std::bit_cast<Real>(i >= 0 ? i : std::numeric_limits<Int>::min() - i);
}

// Returns the lowest number with f(number) = f(x) for a non-decreasing f. A threshold at x itself would cut numbers
// that tie with x under f.
template <typename Real, typename Function>
Real lowest_tie(Real x, const Function& f) {
  if (x <= kLowest<Real>) return x;
  const auto value = f(x);
  auto high = to_ordinal(x), low = to_ordinal(kLowest<Real>);
  if (f(from_ordinal<Real>(high - 1)) != value) return x;
  while (low < high) {
    const auto middle = std::midpoint(low, high);
    if (f(from_ordinal<Real>(middle)) == value) high = middle;
    else low = middle + 1;
  }
  return from_ordinal<Real>(high);
}

DrawStatus status_of_infinite(const float* logits, int n, float largest) {
  if (std::any_of(logits, logits + n, [](float x) { return std::isnan(x); })) return DrawStatus::nan_logit;
  return largest > 0 ? DrawStatus::infinite_logit : DrawStatus::no_candidate;
}

// Computes ln x for a positive, finite x, to two units in the last place: C libraries differ in the last bits. With
// x = 2^n · m and m between √½ and √2, ln m = 2 artanh s = 2 (s + s³ / 3 + s⁵ / 5 + …), where s = (m - 1) / (m + 1).
double natural_log(double x) {
  int n = 0;
  double m = std::frexp(x, &n);
  if (m < 0.70710678118654752) m *= 2, --n;
  const double s = (m - 1) / (m + 1), square = s * s;
  double series = 0;
  for (int power = 21; power > 1; power -= 2) series = (series + 1.0 / power) * square;
  return n * 0.693147180369123816490 + (2 * s + (2 * s * series + n * 1.90821492927058770002e-10));
}

// Adds in four independent chains, so that one addition need not wait for the last.
double sum_of(const double* x, int n) {
  double a = 0, b = 0, c = 0, d = 0;
  int i = 0;
  for (; i + 4 <= n; i += 4) a += x[i], b += x[i + 1], c += x[i + 2], d += x[i + 3];
  for (; i < n; ++i) a += x[i];
  return (a + b) + (c + d);
}

// Adds x[0], x[1], … to `below`; returns the first i at which it exceeds `target`, or n.
int index_over(double target, const double* x, int n, double& below) {
  int i = 0;
  for (; i < n; ++i)
    if ((below += x[i]) > target) break;
  return i;
}

}  // namespace

std::optional<SamplingParams> SamplingParams::read(const double* p) {
  const bool good = p[0] >= 0 && std::isfinite(p[0]) && p[1] >= 0 && p[1] <= 9e15 && p[2] >= 0 && p[2] <= 1 &&
                    p[3] >= 0 && p[3] <= 1 && p[4] > 0 && std::isfinite(p[4]) && std::isfinite(p[5]) &&
                    std::isfinite(p[6]);
  if (!good) return std::nullopt;
  return SamplingParams{p[0], std::int64_t(p[1]), p[2], p[3], p[4], p[5], p[6]};
}

void Sampler::reserve(int n_vocab) {
  if (n_vocab <= reserved_) return;
  const std::size_t n = n_vocab, bins = bin_count(n_vocab);
  ids_.reset(new std::int32_t[n + kSlack]);
  probabilities_.reset(new double[n]);
  keys_.reset(new double[n]);
  scores_.reset(new double[n]);
  logit_bins_.reset(new float[bins]);
  score_bins_.reset(new double[bins]);
  order_.reset(new double[std::max(bins, n / kSample)]);
  ranked_.reset(new Ranked[n + 1]);
  occurrences_.resize(n);
  reserved_ = n_vocab;
}

DrawResult Sampler::draw(const float* logits, int n_vocab, const Draw& draw, const TopTokens& top) {
  const float largest = kernels_->logits.largest(logits, n_vocab, logit_bins_.get());
  if (std::isinf(largest)) return {status_of_infinite(logits, n_vocab, largest)};
  const double sum = kernels_->sum_exp(logits, n_vocab, largest);
  if (std::isnan(sum)) return {DrawStatus::nan_logit};

  DrawResult result;
  const Scores<float> scores{logits, logit_bins_.get(), n_vocab, largest, kernels_->logits};
  if (draw.bias_size > 0 || draw.params.penalises()) {
    result.status = adjust(logits, n_vocab, draw);
    if (result.status != DrawStatus::ok) return result;
    const double* bins = score_bins_.get();
    const double largest_score = *std::max_element(bins, bins + bin_count(n_vocab));
    result.token = choose(Scores<double>{scores_.get(), bins, n_vocab, largest_score, kernels_->scores}, draw);
  } else {
    result.token = choose(scores, draw);
  }
  const double log_sum = natural_log(sum);
  result.logprob = float(double(logits[result.token]) - double(largest) - log_sum);
  write_top(scores, log_sum, top);
  return result;
}

// Fills scores_ and score_bins_.
DrawStatus Sampler::adjust(const float* logits, int n_vocab, const Draw& draw) {
  std::copy(logits, logits + n_vocab, scores_.get());
  for (std::size_t i = 0; i < draw.bias_size; ++i) scores_[draw.bias_ids[i]] += draw.bias_values[i];
  if (draw.params.penalises()) {
    for (const Tokens& tokens : {draw.history, draw.recent})
      for (std::size_t i = 0; i < tokens.size; ++i) ++occurrences_[tokens.ids[i]];
    for (const Tokens& tokens : {draw.history, draw.recent}) penalise(draw.params, tokens);
    for (const Tokens& tokens : {draw.history, draw.recent})
      for (std::size_t i = 0; i < tokens.size; ++i)
        if (std::isnan(scores_[tokens.ids[i]])) return DrawStatus::nan_logit;
  }
  const double largest = kernels_->scores.largest(scores_.get(), n_vocab, score_bins_.get());
  if (!std::isinf(largest)) return DrawStatus::ok;
  return largest > 0 ? DrawStatus::infinite_logit : DrawStatus::no_candidate;  // a bias may ban every token
}

void Sampler::penalise(const SamplingParams& params, const Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size; ++i) {
    std::int32_t& count = occurrences_[tokens.ids[i]];
    if (count == 0) continue;  // already penalised at the first occurrence
    double& s = scores_[tokens.ids[i]];
    s = s > 0 ? s / params.repetition_penalty : s * params.repetition_penalty;
    s = s - params.presence_penalty - params.frequency_penalty * count;
    count = 0;
  }
}

void Sampler::write_top(const Scores<float>& scores, double log_sum, const TopTokens& top) {
  if (top.size == 0) return;
  gather_likeliest(scores, top.size, kBanned<float>, [](float score) { return score; });
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    return scores.values[a] != scores.values[b] ? scores.values[a] > scores.values[b] : a < b;
  };
  std::partial_sort(ids_.get(), ids_.get() + top.size, ids_.get() + count_, likelier);
  for (int i = 0; i < top.size; ++i) {
    top.ids[i] = ids_[i];
    top.logprobs[i] = float(double(scores.values[ids_[i]]) - double(scores.largest) - log_sum);
  }
}

template <typename Real>
std::int32_t Sampler::choose(const Scores<Real>& scores, const Draw& draw) {
  const SamplingParams& params = draw.params;
  const double temperature = params.temperature;
  if (temperature == 0) {
    scores.kernels.at_least(scores.values, scores.n, scores.bins, scores.largest, ids_.get());
    return ids_[0];
  }
  const double random = philox_uniform(draw.seed, draw.stream, draw.position);
  const bool by_k = params.top_k > 0 && params.top_k < scores.n;
  const double share = params.top_p * (1 - kRounding), least = params.min_p * (1 - kRounding);
  if (by_k) {
    const double total = gather_top_k(scores, temperature, int(params.top_k));
    if (params.top_p < 1) keep_top_p(scores, temperature, share * total);
  } else if (params.top_p < 1) {
    keep_top_p(scores, temperature, gather_top_p(scores, temperature, share));
  } else if (params.min_p > 0) {
    gather_min_p(scores, temperature, params.min_p);
  } else {
    return pick_from_all(scores, temperature, random);
  }
  if (params.min_p > 0)
    for (int i = 0; i < count_; ++i) probabilities_[i] = probabilities_[i] < least ? 0 : probabilities_[i];
  return pick(random);
}

// Draws from the whole vocabulary: finds the stride of ids in which the sum of probabilities passes the target.
template <typename Real>
std::int32_t Sampler::pick_from_all(const Scores<Real>& scores, double temperature, double random) {
  const double scale = scale_of(temperature);
  const double total = scores.kernels.sum_strides(scores.values, scores.n, scores.largest, scale, keys_.get());
  const double target = random * total;
  int last = (scores.n - 1) / kStride;
  while (keys_[last] < kNothing) --last;
  int stride = 0;
  double below = 0;
  while (stride < last && below + keys_[stride] <= target) below += keys_[stride++];

  for (; stride <= last; ++stride) {
    const int begin = stride * kStride;
    count_ = std::min(kStride, scores.n - begin);
    for (int i = 0; i < count_; ++i)
      probabilities_[i] = (double(scores.values[begin + i]) - double(scores.largest)) * scale;
    kernels_->exp(probabilities_.get(), count_, probabilities_.get());
    const int i = index_over(target, probabilities_.get(), count_, below);
    if (i < count_) return begin + i;
  }
  return last * kStride + last_candidate();
}

// Weighs the candidates in ids_; returns the sum of their probabilities.
template <typename Real>
double Sampler::weigh(const Scores<Real>& scores, double temperature) {
  const double largest = scores.largest;
  for (int i = 0; i < count_; ++i) keys_[i] = (double(scores.values[ids_[i]]) - largest) / temperature;
  return kernels_->exp(keys_.get(), count_, probabilities_.get());
}

template <typename Real>
double Sampler::gather(const Scores<Real>& scores, double temperature, Real threshold) {
  threshold = std::max(threshold, kLowest<Real>);
  count_ = scores.kernels.at_least(scores.values, scores.n, scores.bins, threshold, ids_.get());
  return weigh(scores, temperature);
}

// Gathers the ids of at least the k largest scores (of all that reach `lowest`, if those are fewer than k).
template <typename Real, typename Function>
void Sampler::gather_likeliest(const Scores<Real>& scores, int k, Real lowest, const Function& key) {
  const Real bound = lowest_tie(std::max(guess_of_likeliest(scores, k), lowest), key);
  count_ = scores.kernels.at_least(scores.values, scores.n, scores.bins, bound, ids_.get());
  if (count_ < k) count_ = scores.kernels.at_least(scores.values, scores.n, scores.bins, lowest, ids_.get());
}

// Returns a number that about k scores reach; at least k, if k is not larger than the number of bins.
template <typename Real>
Real Sampler::guess_of_likeliest(const Scores<Real>& scores, int k) {
  int size = bin_count(scores.n), rank = k;
  if (k <= size) {
    std::copy(scores.bins, scores.bins + size, order_.get());
  } else {  // from every kSample-th score, with a margin
    size = scores.n / kSample;
    rank = k / kSample + 3 * int(std::sqrt(k / kSample)) + 1;
    if (rank > size) return kBanned<Real>;
    for (int i = 0; i < size; ++i) order_[i] = scores.values[i * kSample];
  }
  std::nth_element(order_.get(), order_.get() + (rank - 1), order_.get() + size, std::greater<>());
  return Real(order_[rank - 1]);
}

// Gathers the k largest scores and all ties with the k-th.
template <typename Real>
double Sampler::gather_top_k(const Scores<Real>& scores, double temperature, int k) {
  const Temper temper{scores.largest, temperature};
  gather_likeliest(scores, k, kLowest<Real>, temper);
  if (count_ > k) {
    for (int i = 0; i < count_; ++i) keys_[i] = scores.values[ids_[i]];
    std::nth_element(keys_.get(), keys_.get() + (k - 1), keys_.get() + count_, std::greater<>());
    const double smallest = temper(keys_[k - 1]);
    const auto cut = [&](std::int32_t id) { return temper(scores.values[id]) < smallest; };
    count_ = int(std::remove_if(ids_.get(), ids_.get() + count_, cut) - ids_.get());
  }
  return weigh(scores, temperature);
}

// Gathers enough of the most likely tokens that their probabilities reach the share p of the total; returns that share
// of the total.
template <typename Real>
double Sampler::gather_top_p(const Scores<Real>& scores, double temperature, double p) {
  const double scale = scale_of(temperature);
  const double target = p * scores.kernels.sum_strides(scores.values, scores.n, scores.largest, scale, keys_.get());
  const Temper temper{scores.largest, temperature};
  // With GPT-2, hundreds of tokens reach the mean of the bins' largest scores, and thousands reach the smallest of
  // them.
  Real smallest = scores.largest;
  double sum = 0;
  int finite = 0;
  for (int bin = 0; bin < bin_count(scores.n); ++bin) {
    if (scores.bins[bin] == kBanned<Real>) continue;
    smallest = std::min(smallest, scores.bins[bin]);
    sum += double(scores.bins[bin]);
    ++finite;
  }
  for (const Real bound : {Real(sum / finite), smallest})
    if (gather(scores, temperature, lowest_tie(bound, temper)) >= target * (1 + 1e-9)) return target;
  return p * gather(scores, temperature, kLowest<Real>);
}

// Gathers at least the tokens that are at least p times as likely as the most likely one.
template <typename Real>
double Sampler::gather_min_p(const Scores<Real>& scores, double temperature, double p) {
  const double bound = double(scores.largest) + temperature * natural_log(p);
  const double below = bound - 1e-6 * (std::abs(bound) + temperature);  // a margin for rounding
  return gather(scores, temperature, Real(std::max(below, double(kLowest<Real>))));
}

// Cuts all but the most likely candidates that together reach `target`. Candidates fall into buckets by their scores;
// only the bucket in which the sum, from the most likely on, crosses the target needs sorting. The scores, not their
// exponentials, say which candidate is more likely: where two exponentials tie is a matter of their rounding.
template <typename Real>
void Sampler::keep_top_p(const Scores<Real>& scores, double temperature, double target) {
  const Temper temper{scores.largest, temperature};
  double lowest = -1 / kBucketsPerNat;
  for (int i = 0; i < count_; ++i) lowest = std::min(lowest, keys_[i]);
  const double scale = std::max(kBucketsPerNat, (kBuckets - 1) / -lowest);
  const auto bucket_of = [&](int i) { return int(std::min(keys_[i] * -scale, kBuckets - 1.0)); };
  std::array<double, kBuckets> mass{};
  for (int i = 0; i < count_; ++i) mass[bucket_of(i)] += probabilities_[i];
  int crossing = 0, size = 0;
  double kept = 0;
  while (crossing + 1 < kBuckets && kept + mass[crossing] < target) kept += mass[crossing++];

  for (int i = 0; i < count_; ++i) {  // without branches, which the CPU would mispredict
    const int bucket = bucket_of(i);
    ranked_[size] = {temper(scores.values[ids_[i]]), probabilities_[i], i};
    size += (bucket == crossing) & (probabilities_[i] > 0);
    probabilities_[i] = bucket >= crossing ? 0 : probabilities_[i];
  }
  std::sort(ranked_.get(), ranked_.get() + size, [](const Ranked& a, const Ranked& b) {
    return a.score != b.score ? a.score > b.score : a.index < b.index;
  });
  for (int i = 0; i < size && (kept == 0 || kept < target); ++i) {
    probabilities_[ranked_[i].index] = ranked_[i].probability;
    kept += ranked_[i].probability;
  }
}

// Returns the first candidate at which the sum of probabilities, in the order of ids, exceeds `random` of the total.
std::int32_t Sampler::pick(double random) {
  double total = 0;
  for (int begin = 0; begin < count_; begin += kStride)
    total += keys_[begin / kStride] = sum_of(probabilities_.get() + begin, std::min(kStride, count_ - begin));
  const double target = random * total;
  double below = 0;
  int begin = 0;
  for (; begin + kStride < count_ && below + keys_[begin / kStride] <= target; begin += kStride)
    below += keys_[begin / kStride];
  const int i = begin + index_over(target, probabilities_.get() + begin, count_ - begin, below);
  return ids_[i < count_ ? i : last_candidate()];
}

// Returns the last candidate that is not cut, for when rounding puts the target beyond the sum.
int Sampler::last_candidate() const {
  int i = count_ - 1;
  while (i > 0 && probabilities_[i] == 0) --i;
  return i;
}

}  // namespace gpt2lab
