#include "prompt_attention.h"

#include <algorithm>

namespace gpt2lab {

PromptAttention::PromptAttention(const Shape& shape, bool fused, const Kernels& kernels, KVCache& cache, int threads)
    : shape_(shape), fused_(fused), max_rows_(cache.packed() ? kRowGroup : kernels.max_rows), kernels_(kernels),
      cache_(cache), own_(threads) {
  const std::size_t blocks = std::size_t(shape.n_ctx + kTile - 1) / kTile;
  for (Own& own : own_) {
    if (cache.packed()) {
      own.rows.resize(max_rows_);
      own.scratch = Array<std::byte>(kernels.packed_attention_bytes(cache.precision(), shape.head_dim()));
      continue;
    }
    own.scores = FloatArray(std::size_t(max_rows_) * kSpan);
    own.sums = FloatArray(std::size_t(max_rows_) * cache.value_stride());
    own.keys.resize(blocks);
    own.values.resize(blocks);
  }
}

void PromptAttention::plan(const std::vector<CacheRow>& rows) {
  rows_.clear();
  spans_.clear();
  blocks_.clear();
  for (int i = 0; i < int(rows.size()); ++i) {
    const bool continues = i > 0 && rows[i].sequence == rows[i - 1].sequence;
    if (!continues) blocks_.push_back(cache_.blocks(rows[i].sequence));
    rows_.push_back({rows[i].position, int(blocks_.size()) - 1});
    if (continues && spans_.back().count < max_rows_) ++spans_.back().count;
    else spans_.push_back({i, 1});
  }
}

// Returns a thread's heads of a span. If the heads divide evenly among the threads, a thread has the same ones in every
// span, and their keys and values stay in the caches of one core. Otherwise the shares rotate, so that every thread
// gets work.
Share PromptAttention::heads(int span, int thread) const {
  const int threads = int(own_.size()), turn = shape_.n_head % threads == 0 ? 0 : span;
  return {shape_.n_head, (thread + turn) % threads, threads};
}

// Takes a few rows at a time and goes through their heads in order. Each row is thus read from left to right, which the
// CPU's prefetcher recognises.
void PromptAttention::store(int layer, const float* qkv, Share rows) const {
  constexpr int kAtOnce = 16;
  for (int first = rows.begin; first < rows.end; first += kAtOnce)
    for (int head = 0; head < shape_.n_head; ++head)
      store(layer, head, qkv, {first, std::min(first + kAtOnce, rows.end)});
}

void PromptAttention::store(int layer, int head, const float* qkv, Share rows) const {
  const std::size_t n = shape_.n_embd, offset = cache_.offset(layer, head);
  for (int i = rows.begin, count; i < rows.end; i += count) {
    const Row& row = rows_[i];
    const int slot = row.position % kTile, most = std::min(rows.end - i, kTile - slot);
    for (count = 1; count < most && rows_[i + count].sequence == row.sequence;) ++count;
    const float* key = qkv + i * 3 * n + n + head * shape_.head_dim();
    cache_.store(kernels_, blocks_[row.sequence][row.position / kTile] + offset, slot, count, key, key + n, 3 * n);
  }
}

// Goes head by head, so that the keys and values of a head stay in the second-level cache.
void PromptAttention::run(int layer, const float* qkv, float* mixed, int thread) {
  for (int head = 0; head < shape_.n_head; ++head)
    for (int s = 0; s < int(spans_.size()); ++s) {
      const Share heads = this->heads(s, thread);
      if (head < heads.begin || head >= heads.end) continue;
      if (cache_.packed()) attend_packed(layer, head, spans_[s], qkv, mixed, own_[thread]);
      else attend(layer, head, spans_[s], qkv, mixed, own_[thread]);
    }
}

void PromptAttention::attend(int layer, int head, const Span& span, const float* qkv, float* mixed, Own& own) const {
  const std::size_t n = shape_.n_embd, column = head * shape_.head_dim();
  const Row& first = rows_[span.first];
  const auto& blocks = blocks_[first.sequence];
  for (int b = 0; b <= (first.position + span.count - 1) / kTile; ++b) {
    own.keys[b] = blocks[b] + cache_.offset(layer, head);
    own.values[b] = blocks[b] + cache_.offset(layer, head) + cache_.value_offset();
  }
  kernels_.attention({.q = qkv + span.first * 3 * n + column,
                      .ldq = 3 * n,
                      .format = cache_.precision(),
                      .keys = own.keys.data(),
                      .values = own.values.data(),
                      .value_stride = cache_.value_stride(),
                      .out = mixed + span.first * n + column,
                      .ldo = n,
                      .scores = own.scores.data(),
                      .sums = own.sums.data(),
                      .m = span.count,
                      .head_dim = shape_.head_dim(),
                      .fused = fused_,
                      .first_position = first.position,
                      .scale = shape_.score_scale(layer)});
}

void PromptAttention::attend_packed(int layer, int head, const Span& span, const float* qkv, float* mixed,
                                    Own& own) const {
  const std::size_t n = shape_.n_embd, column = head * shape_.head_dim(), offset = cache_.offset(layer, head);
  const std::byte* const* blocks = blocks_[rows_[span.first].sequence].data();
  for (int r = 0; r < span.count; ++r) {
    const std::size_t row = span.first + r;
    own.rows[r] = {qkv + row * 3 * n + column, blocks, blocks, rows_[row].position, mixed + row * n + column};
  }
  kernels_.packed_attention({.rows = own.rows.data(),
                             .offset = offset,
                             .ahead_offset = offset,
                             .format = cache_.precision(),
                             .m = span.count,
                             .shared = own.rows[span.count - 1].position / kTile + 1,
                             .head_dim = shape_.head_dim(),
                             .scale = shape_.score_scale(layer),
                             .scratch = own.scratch.data()});
}

}  // namespace gpt2lab
