#include "prompt_attention.h"

#include "thread_pool.h"

namespace gpt2lab {

PromptAttention::PromptAttention(const Shape& shape, bool fused, const Kernels& kernels, KVCache& cache, int threads)
    : shape_(shape), fused_(fused), int8_(cache.precision() == KVPrecision::int8),
      max_rows_(int8_ ? kRowGroup : kernels.max_rows), kernels_(kernels), cache_(cache), own_(threads) {
  const std::size_t blocks = std::size_t(shape.n_ctx + kTile - 1) / kTile;
  for (Own& own : own_) {
    if (int8_) {
      own.rows.resize(max_rows_);
      own.scratch = Array<std::byte>(kernels.int8_attention_bytes(shape.head_dim()));
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

void PromptAttention::store(int layer, const float* qkv, int thread) const {
  const int heads = shape_.n_head, n = shape_.n_embd;
  const Share share(int(rows_.size()) * heads, thread, int(own_.size()));
  for (int i = share.begin; i < share.end; ++i) {
    const Row& row = rows_[i / heads];
    const int head = i % heads;
    const float* key = qkv + std::size_t(i / heads) * 3 * n + n + head * shape_.head_dim();
    std::byte* keys = blocks_[row.sequence][row.position / kTile] + cache_.offset(layer, head);
    cache_.store(kernels_, keys, row.position % kTile, key, key + n);
  }
}

// Neighbouring heads, which are adjacent in the cache, go to one thread. The shares rotate from span to span, so that
// every thread gets work where there are more threads than heads.
void PromptAttention::run(int layer, const float* qkv, float* mixed, int thread) {
  const int threads = int(own_.size());
  for (std::size_t s = 0; s < spans_.size(); ++s) {
    const Share heads(shape_.n_head, int((thread + s) % threads), threads);
    for (int head = heads.begin; head < heads.end; ++head)
      if (int8_) attend_int8(layer, head, spans_[s], qkv, mixed, own_[thread]);
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
                      .halves = cache_.precision() == KVPrecision::float16,
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
                      .scale = shape_.attention_scale(layer)});
}

void PromptAttention::attend_int8(int layer, int head, const Span& span, const float* qkv, float* mixed,
                                  Own& own) const {
  const std::size_t n = shape_.n_embd, column = head * shape_.head_dim(), offset = cache_.offset(layer, head);
  const std::byte* const* blocks = blocks_[rows_[span.first].sequence].data();
  for (int r = 0; r < span.count; ++r) {
    const std::size_t row = span.first + r;
    own.rows[r] = {qkv + row * 3 * n + column, blocks, blocks, rows_[row].position, mixed + row * n + column};
  }
  kernels_.int8_attention({.rows = own.rows.data(),
                           .offset = offset,
                           .ahead_offset = offset,
                           .m = span.count,
                           .shared = own.rows[span.count - 1].position / kTile + 1,
                           .head_dim = shape_.head_dim(),
                           .scale = shape_.attention_scale(layer),
                           .scratch = own.scratch.data()});
}

}  // namespace gpt2lab
