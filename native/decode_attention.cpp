#include "decode_attention.h"

#include <algorithm>

namespace gpt2lab {
namespace {

// Returns the number of blocks that both sequences begin with.
int common(const std::vector<std::byte*>& a, const std::vector<std::byte*>& b) {
  return int(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

DecodeAttention::DecodeAttention(const Shape& shape, bool fused, const Kernels& kernels, KVCache& cache, int threads)
    : shape_(shape), fused_(fused), max_rows_(cache.packed() ? kRowGroup : kernels.max_rows), kernels_(kernels),
      cache_(cache), own_(threads) {
  for (Own& own : own_) {
    own.rows.resize(max_rows_);
    if (cache.packed()) {
      own.scratch = Array<std::byte>(kernels.packed_attention_bytes(cache.precision(), shape.head_dim()));
      continue;
    }
    own.queries = FloatArray(std::size_t(max_rows_) * shape.head_dim());
    own.scores = FloatArray(std::size_t(max_rows_) * kSpan);
    own.sums = FloatArray(std::size_t(max_rows_) * cache.value_stride());
  }
}

void DecodeAttention::plan(const std::vector<CacheRow>& rows) {
  members_.clear();
  std::size_t most = 0;
  for (int i = 0; i < int(rows.size()); ++i) {
    members_.push_back({i, rows[i].position, cache_.blocks(rows[i].sequence)});
    most = std::max(most, members_.back().blocks.size());
  }
  std::stable_sort(members_.begin(), members_.end(),
                   [](const Member& a, const Member& b) { return a.blocks < b.blocks; });
  group_members();
  for (Member& member : members_) member.blocks.resize(most, member.blocks.back());  // so that any can be prefetched
}

// Divides runs of members with a common beginning into equal groups of at most max_rows_.
void DecodeAttention::group_members() {
  groups_.clear();
  for (int first = 0, end; first < int(members_.size()); first = end) {
    int shared = 0;
    for (end = first + 1; end < int(members_.size()); ++end) {
      const int both = common(members_[end - 1].blocks, members_[end].blocks);
      if (both == 0 || both < shared) break;
      if (shared == 0) shared = both;
    }
    const int parts = (end - first + max_rows_ - 1) / max_rows_;
    for (int part = 0; part < parts; ++part) {
      Group group{first + (end - first) * part / parts, 0, shared, 0};
      group.count = first + (end - first) * (part + 1) / parts - group.first;
      if (group.count == 1) group.shared = 0;
      for (int i = group.first; i < group.first + group.count; ++i) group.cost += 2 + int(members_[i].blocks.size());
      groups_.push_back(group);
    }
  }
}

// Returns the first item of a thread's share. An item is one head of one group; the groups follow one another.
int DecodeAttention::first_item(int thread) const {
  const int heads = shape_.n_head, threads = int(own_.size());
  std::int64_t cost = 0;
  for (const Group& group : groups_) cost += group.cost * heads;
  std::int64_t before = cost * thread / threads;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const std::int64_t whole = groups_[i].cost * heads;
    if (before < whole) return int(i) * heads + int((before + groups_[i].cost / 2) / groups_[i].cost);
    before -= whole;
  }
  return int(groups_.size()) * heads;
}

// The next item's keys and values are stored, and its inputs prefetched, before its turn comes.
void DecodeAttention::run(int layer, const float* qkv, float* mixed, int thread) {
  const int begin = first_item(thread), end = first_item(thread + 1);
  if (begin < end) store(layer, begin, qkv);
  for (int item = begin; item < end; ++item) {
    const int next = std::min(item + 1, end - 1);
    if (next > item) store(layer, next, qkv);
    attend(layer, item, next, qkv, mixed, own_[thread]);
  }
}

void DecodeAttention::store(int layer, int item, const float* qkv) const {
  const Group& group = group_of(item);
  const int n = shape_.n_embd, head = head_of(item);
  for (int i = group.first; i < group.first + group.count; ++i) {
    const Member& member = members_[i];
    const float* key = qkv + std::size_t(member.index) * 3 * n + n + head * shape_.head_dim();
    std::byte* keys = member.blocks[member.position / kTile] + cache_.offset(layer, head);
    cache_.store(kernels_, keys, member.position % kTile, 1, key, key + n, 0);
  }
}

void DecodeAttention::attend(int layer, int item, int next, const float* qkv, float* mixed, Own& own) const {
  const Group &group = group_of(item), &following = group_of(next);
  const std::size_t n = shape_.n_embd, column = head_of(item) * shape_.head_dim();
  for (int i = 0; i < group.count; ++i) {
    const Member& member = members_[group.first + i];
    const Member& ahead = members_[following.first + std::min(i, following.count - 1)];
    own.rows[i] = {qkv + member.index * 3 * n + column, member.blocks.data(), ahead.blocks.data(), member.position,
                   mixed + member.index * n + column};
  }
  const std::size_t offset = cache_.offset(layer, head_of(item)), ahead_offset = cache_.offset(layer, head_of(next));
  const float scale = shape_.score_scale(layer);
  if (cache_.packed())
    return kernels_.packed_attention({.rows = own.rows.data(),
                                      .offset = offset,
                                      .ahead_offset = ahead_offset,
                                      .format = cache_.precision(),
                                      .m = group.count,
                                      .shared = group.shared,
                                      .head_dim = shape_.head_dim(),
                                      .scale = scale,
                                      .scratch = own.scratch.data()});
  kernels_.sequence_attention({.rows = own.rows.data(),
                               .offset = offset,
                               .ahead_offset = ahead_offset,
                               .format = cache_.precision(),
                               .fused = fused_,
                               .m = group.count,
                               .shared = group.shared,
                               .head_dim = shape_.head_dim(),
                               .value_stride = cache_.value_stride(),
                               .scale = scale,
                               .queries = own.queries.data(),
                               .scores = own.scores.data(),
                               .sums = own.sums.data()});
}

}  // namespace gpt2lab
