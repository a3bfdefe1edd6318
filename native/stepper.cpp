#include "stepper.h"

#include <algorithm>
#include <atomic>

#include "float_mode.h"

namespace gpt2lab {
namespace {

constexpr int kPassRows = 128;  // rows of logits held at a time: enough to read the weights rarely

bool failed(const Chain& chain) { return chain.drawn > 0 && chain.results[chain.drawn - 1].status != DrawStatus::ok; }

}  // namespace

Stepper::Stepper(Transformer& model, const Kernels& kernels, ThreadPool& pool, int n_vocab)
    : model_(model), pool_(pool), n_vocab_(n_vocab) {
  for (int thread = 0; thread < pool.size(); ++thread) samplers_.emplace_back(kernels);
}

bool Stepper::step(const std::vector<Feed>& feeds, std::vector<Chain>& chains) {
  std::vector<int> lengths;
  for (const Feed& feed : feeds) lengths.push_back(model_.cache().length(feed.sequence));
  const auto take_back = [&] {
    for (std::size_t i = 0; i < feeds.size(); ++i)
      if (model_.cache().length(feeds[i].sequence) > lengths[i]) model_.cache().truncate(feeds[i].sequence, lengths[i]);
  };
  try {
    if (run(feeds, chains)) return true;
  } catch (...) {
    take_back();
    throw;
  }
  take_back();
  return false;
}

// Cuts the feeds into passes of at most kPassRows rows of logits.
bool Stepper::run(const std::vector<Feed>& feeds, std::vector<Chain>& chains) {
  int rows = 0;
  for (const Chain& chain : chains) rows = std::min(kPassRows, rows + chain.count);
  if (const std::size_t size = std::size_t(rows) * n_vocab_; logits_.size() < size) logits_ = FloatArray(size);

  Pass pass;
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    Feed rest = feeds[i];
    rest.outputs = chains[i].count;
    while (rest.count > 0) {
      if (rest.outputs > 0 && pass.rows == kPassRows && !run(pass)) return false;
      const int outputs = std::min(rest.outputs, kPassRows - pass.rows);
      const int count = rest.count - (rest.outputs - outputs);
      pass.feeds.push_back({rest.sequence, rest.tokens, count, outputs});
      if (outputs > 0) pass.parts.push_back({&chains[i], logits_.data() + std::size_t(pass.rows) * n_vocab_, outputs});
      pass.rows += outputs;
      rest = {rest.sequence, rest.tokens + count, rest.count - count, rest.outputs - outputs};
    }
  }
  return run(pass);
}

bool Stepper::run(Pass& pass) {
  if (!pass.feeds.empty()) model_.forward(pass.feeds, logits_.data());
  draw_parts(pass.parts);
  const bool good = std::none_of(pass.parts.begin(), pass.parts.end(), [](const Part& p) { return failed(*p.chain); });
  pass = {};
  return good;
}

std::vector<DrawResult> Stepper::draw(const float* logits, const std::vector<Draw>& draws) {
  std::vector<DrawResult> results(draws.size());
  std::vector<Chain> chains(draws.size());
  std::vector<Part> parts;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    chains[i].first = draws[i];
    chains[i].count = 1;
    chains[i].results = &results[i];
    parts.push_back({&chains[i], logits + i * n_vocab_, 1});
  }
  draw_parts(parts);
  return results;
}

// A free thread takes the next chain: a sampler's draws do not depend on its earlier draws.
void Stepper::draw_parts(const std::vector<Part>& parts) {
  const std::size_t threads = std::min<std::size_t>(parts.size(), pool_.size());
  for (std::size_t thread = 0; thread < threads; ++thread) samplers_[thread].reserve(n_vocab_);
  std::atomic<std::size_t> next{0};
  const auto work = [&](int thread) {
    if (std::size_t(thread) >= threads) return;
    for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < parts.size();)
      draw_part(parts[i], samplers_[thread]);
  };
  const FloatMode mode;
  if (threads == 1) work(0);
  else if (threads > 1) pool_.run(work);
}

void Stepper::draw_part(const Part& part, Sampler& sampler) const {
  Chain& chain = *part.chain;
  for (int row = 0; row < part.rows && !chain.ended; ++row) {
    Draw draw = chain.first;
    draw.position += std::uint32_t(chain.drawn);
    draw.recent = {chain.guesses, std::size_t(chain.drawn)};  // all guesses so far were drawn
    const std::size_t offset = std::size_t(chain.drawn) * chain.top.size;
    const TopTokens top{chain.top.size, chain.top.ids + offset, chain.top.logprobs + offset};
    const DrawResult result = sampler.draw(part.logits + std::size_t(row) * n_vocab_, n_vocab_, draw, top);
    chain.results[chain.drawn++] = result;
    chain.ended = result.status != DrawStatus::ok || chain.drawn == chain.count ||
                  result.token != chain.guesses[chain.drawn - 1];
  }
}

}  // namespace gpt2lab
