#include "kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace gpt2lab {

namespace {

std::size_t size_of(KVPrecision precision) {
  switch (precision) {
    case KVPrecision::float32: return sizeof(float);
    case KVPrecision::float16: return sizeof(Half);
    case KVPrecision::bfloat16: return sizeof(BFloat16);
    case KVPrecision::int8: return sizeof(Int8);
  }
  return 0;  // never reached
}

}  // namespace

KVCache::KVCache(int n_layer, int n_head, int head_dim, KVPrecision precision, bool packed)
    : n_layer_(n_layer), n_head_(n_head), head_dim_(head_dim), value_stride_((head_dim + kTile - 1) / kTile * kTile),
      precision_(precision), packed_(packed), number_size_(size_of(precision)),
      scale_size_(precision == KVPrecision::int8 ? sizeof(float) : 0), together_(packed ? 4 / number_size_ : 1) {
  head_size_ = value_offset() + std::size_t(kTile) * (value_stride_ * number_size_ + 2 * scale_size_);
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
  if (sequences_.empty() && bytes_held() > kKept) trim();
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

std::vector<std::byte*> KVCache::blocks(int sequence) {
  std::vector<std::byte*> data;
  for (const int block : find(sequence).blocks) data.push_back(block_at(block));
  return data;
}

namespace {

// Writes numbers to one slot of keys, [n][kTile].
template <typename T>
void scatter_key(const T* x, int n, std::byte* key) {
  for (int i = 0; i < n; ++i, key += kTile * sizeof(T)) std::memcpy(key, x + i, sizeof(T));
}

bool is_finite(const std::byte* bfloat16) {
  constexpr std::uint16_t kInfinity = 0x7f80;
  std::uint16_t bits;
  std::memcpy(&bits, bfloat16, sizeof bits);
  return (bits & kInfinity) != kInfinity;
}

}  // namespace

void KVCache::store(const Kernels& kernels, std::byte* keys, int slot, int count, const float* key, const float* value,
                    std::size_t row) const {
  if (precision_ == KVPrecision::int8) return store_int8(kernels, keys, slot, count, key, value, row);
  for (int i = 0; i < count; ++i) store_floats(kernels, keys, slot + i, key + i * row, value + i * row);
}

void KVCache::store_int8(const Kernels& kernels, std::byte* keys, int slot, int count, const float* key,
                         const float* value, std::size_t row) const {
  auto* scales = reinterpret_cast<float*>(scale(keys, slot));
  const auto at = [](std::byte* numbers) { return reinterpret_cast<Int8*>(numbers); };
  for (int i = 0; i < count; ++i)
    scales[i] = kernels.to_int8(key + i * row, head_dim_, 4, PackedBlock::kKeyStep, at(this->key(keys, slot + i)));
  for (int i = 0; i < count;) {
    Int8* out = at(this->value(keys, slot + i));
    if ((slot + i) % 4 == 0 && i + 4 <= count) {
      kernels.four_to_int8(value + i * row, row, head_dim_, out, scales + kTile + i);
      i += 4;
    } else {
      scales[kTile + i] = kernels.to_int8(value + i * row, head_dim_, 1, 4, out);
      ++i;
    }
  }
}

void KVCache::store_floats(const Kernels& kernels, std::byte* keys, int slot, const float* key,
                           const float* value) const {
  std::byte* row = this->value(keys, slot);
  if (precision_ == KVPrecision::float16) {
    auto* rounded = reinterpret_cast<Half*>(row);  // also of the key, on the way to its places far apart
    kernels.to_halves(key, head_dim_, rounded);
    scatter_key(rounded, head_dim_, this->key(keys, slot));
    kernels.to_halves(value, head_dim_, rounded);
  } else if (packs_bfloat16()) {
    kernels.pack_bfloat16(key, head_dim_, 2, PackedBlock::kKeyStep, reinterpret_cast<BFloat16*>(this->key(keys, slot)));
    if (!kernels.pack_bfloat16(value, head_dim_, 1, value_step(1), reinterpret_cast<BFloat16*>(row)))
      store_nan(keys, slot);
  } else if (precision_ == KVPrecision::bfloat16) {
    auto* rounded = reinterpret_cast<BFloat16*>(row);
    kernels.to_bfloat16(key, head_dim_, rounded);
    scatter_key(rounded, head_dim_, this->key(keys, slot));
    kernels.to_bfloat16(value, head_dim_, rounded);
  } else {
    scatter_key(key, head_dim_, this->key(keys, slot));
    std::memcpy(row, value, head_dim_ * sizeof(float));
  }
}

// Makes a packed value zero and its key NaN, so that exactly the rows that see the slot become NaN: a matrix unit
// multiplies the values that a row must not see by zero, so they must be finite.
void KVCache::store_nan(std::byte* keys, int slot) const {
  constexpr std::uint16_t kNaN = 0x7fc0, kZero = 0;
  for (int i = 0; i < head_dim_; ++i) {
    std::memcpy(key(keys, slot) + key_step(i), &kNaN, sizeof kNaN);
    std::memcpy(value(keys, slot) + value_step(i), &kZero, sizeof kZero);
  }
}

// Calls f(keys, slot, key's offset, value's offset) for every layer, head and position: where the head's keys begin in
// the position's block, and where its rows begin in memory as read() writes it.
template <typename F>
void KVCache::for_each_row(int sequence, F&& f) {
  const std::size_t length = this->length(sequence), row = row_bytes(), kind = n_head_ * length * row;
  for (int layer = 0; layer < n_layer_; ++layer)
    for (int head = 0; head < n_head_; ++head)
      for (std::size_t at = 0; at < length; ++at) {
        const std::size_t offset = 2 * layer * kind + (head * length + at) * row;
        f(keys(sequence, layer, head, int(at) / kTile), int(at) % kTile, offset, offset + kind);
      }
}

void KVCache::read(int sequence, std::byte* numbers) {
  const std::size_t size = head_dim_ * number_size_;
  for_each_row(sequence, [&](std::byte* keys, int slot, std::size_t key_at, std::size_t value_at) {
    for (int i = 0; i < head_dim_; ++i) {
      std::memcpy(numbers + key_at + i * number_size_, key(keys, slot) + key_step(i), number_size_);
      std::memcpy(numbers + value_at + i * number_size_, value(keys, slot) + value_step(i), number_size_);
    }
    if (scale_size_ == 0) return;
    std::memcpy(numbers + key_at + size, scale(keys, slot), scale_size_);
    std::memcpy(numbers + value_at + size, scale(keys, slot) + kTile * scale_size_, scale_size_);
  });
}

void KVCache::write(int sequence, const std::byte* numbers) {
  const std::size_t size = head_dim_ * number_size_;
  for_each_row(sequence, [&](std::byte* keys, int slot, std::size_t key_at, std::size_t value_at) {
    bool finite = true;
    for (int i = 0; i < head_dim_; ++i) {
      std::memcpy(key(keys, slot) + key_step(i), numbers + key_at + i * number_size_, number_size_);
      std::memcpy(value(keys, slot) + value_step(i), numbers + value_at + i * number_size_, number_size_);
      if (packs_bfloat16()) finite &= is_finite(numbers + value_at + i * sizeof(BFloat16));
    }
    if (!finite) store_nan(keys, slot);
    if (scale_size_ == 0) return;
    std::memcpy(scale(keys, slot), numbers + key_at + size, scale_size_);
    std::memcpy(scale(keys, slot) + kTile * scale_size_, numbers + value_at + size, scale_size_);
  });
}

void KVCache::reserve(int blocks) {
  while (int(free_.size()) < blocks) {
    free_.reserve(references_.size() + kSlab);
    references_.reserve(references_.size() + kSlab);
    slabs_.reserve(slabs_.size() + 1);
    Array<std::byte> memory(std::size_t(kSlab) * block_size_);
    const auto empty = std::find_if(slabs_.begin(), slabs_.end(), [](const auto& slab) { return slab.size() == 0; });
    const int first = int(empty - slabs_.begin()) * kSlab;
    if (empty == slabs_.end()) {
      slabs_.push_back(std::move(memory));
      references_.resize(references_.size() + kSlab);
    } else {
      *empty = std::move(memory);
    }
    for (int block = first; block < first + kSlab; ++block) free_.push_back(block);
    taken_ += kSlab;
  }
}

bool KVCache::unused(int slab) const {
  const auto first = references_.begin() + slab * kSlab;
  return std::all_of(first, first + kSlab, [](int references) { return references == 0; });
}

void KVCache::trim() {
  std::erase_if(free_, [this](int block) { return unused(block / kSlab); });
  for (int slab = 0; slab < int(slabs_.size()); ++slab) {
    if (slabs_[slab].size() == 0 || !unused(slab)) continue;
    slabs_[slab] = {};
    taken_ -= kSlab;
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
