#include "kv_cache.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace gpt2lab {

KVCache::KVCache(int n_layer, int n_head, int head_dim, bool half)
    : n_head_(n_head), head_dim_(head_dim), value_stride_((head_dim + kTile - 1) / kTile * kTile),
      number_size_(half ? sizeof(Half) : sizeof(float)) {
  head_size_ = std::size_t(kTile) * (head_dim + value_stride_) * number_size_;
  block_size_ = head_size_ * n_head * n_layer;
}

const KVCache::Sequence& KVCache::find(int sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) throw std::out_of_range("no sequence " + std::to_string(sequence));
  return found->second;
}

int KVCache::create() {
  sequences_.try_emplace(next_sequence_);
  return next_sequence_++;
}

int KVCache::fork(int sequence) {
  const auto& copy = sequences_.emplace(next_sequence_, Sequence(find(sequence))).first->second;
  for (const int block : copy.blocks) ++references_[block];
  return next_sequence_++;
}

void KVCache::free(int sequence) {
  truncate(sequence, 0);
  sequences_.erase(sequence);
}

void KVCache::truncate(int sequence, int length) {
  Sequence& s = find(sequence);
  if (length < 0 || length > s.length)
    throw std::out_of_range("a sequence of " + std::to_string(s.length) + " tokens cannot be truncated to " +
                            std::to_string(length));
  const std::size_t keep = std::size_t(length + kTile - 1) / kTile;
  for (; s.blocks.size() > keep; s.blocks.pop_back()) release(s.blocks.back());
  s.length = length;
}

void KVCache::extend(int sequence, int count) {
  Sequence& s = find(sequence);
  const int blocks = (s.length + count + kTile - 1) / kTile;
  const bool writes_into_last = s.length % kTile != 0 && count > 0;
  const bool copies = writes_into_last && references_[s.blocks.back()] > 1;
  reserve(blocks - int(s.blocks.size()) + int(copies));
  s.blocks.reserve(blocks);
  if (copies) {
    const int copy = take();
    std::memcpy(block_at(copy), block_at(s.blocks.back()), block_bytes());
    release(s.blocks.back());
    s.blocks.back() = copy;
  }
  while (int(s.blocks.size()) < blocks) s.blocks.push_back(take());
  s.length += count;
}

void KVCache::reserve(int blocks) {
  while (int(free_.size()) < blocks) {
    free_.reserve(references_.size() + kSlab);
    references_.reserve(references_.size() + kSlab);
    slabs_.emplace_back(std::size_t(kSlab) * block_size_);
    for (int i = 0; i < kSlab; ++i) {
      free_.push_back(int(references_.size()));
      references_.push_back(0);
    }
  }
}

int KVCache::take() {
  const int block = free_.back();
  free_.pop_back();
  references_[block] = 1;
  return block;
}

void KVCache::release(int block) {
  if (--references_[block] == 0) free_.push_back(block);
}

}  // namespace gpt2lab
