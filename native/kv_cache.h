// The KV cache: keys and values of each sequence's tokens, in blocks of kTile positions that sequences can share.
//
// A block holds kTile positions of every layer and head: keys as [head_dim][kTile], values as [kTile][value_stride]; or
// both packed, as packed_block.h says.
// A forked sequence refers to the same blocks as its parent; a shared block is copied before a sequence writes to it.
// The cache knows nothing of tokens or weights. Two threads must not use it at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "packed_block.h"

namespace gpt2lab {

// A position of a sequence, whose key and value a pass computes.
struct CacheRow {
  int sequence, position;
};

class KVCache {
 public:
  // `packed`: whether the kernels take keys and values of this precision packed.
  KVCache(int n_layer, int n_head, int head_dim, KVPrecision precision, bool packed);

  int create();
  int fork(int sequence);
  void free(int sequence);
  int length(int sequence) const { return find(sequence).length; }
  void truncate(int sequence, int length);

  // Returns memory that no sequence uses to the system. `free` does so by itself once no sequence exists, if it is more
  // than kKept bytes: the next text would only have to take it again.
  void trim();

  // Extends the sequence by `count` positions, in blocks that no other sequence shares. Throws std::bad_alloc, with
  // nothing changed, when there is no memory; the caller has checked n_ctx.
  void extend(int sequence, int count);

  // Copies the keys and values of a sequence to `numbers`, [n_layer, 2, n_head, length, row_bytes()] with keys first,
  // or from there. A row has head_dim numbers; in int8 its scale follows.
  void read(int sequence, std::byte* numbers);
  void write(int sequence, const std::byte* numbers);

  std::byte* keys(int sequence, int layer, int head, int block) {
    return block_data(sequence, block) + offset(layer, head);
  }
  std::byte* values(int sequence, int layer, int head, int block) {
    return keys(sequence, layer, head, block) + value_offset();
  }

  // Return where a head's keys begin in a block, and its values after its keys.
  std::size_t offset(int layer, int head) const { return (std::size_t(layer) * n_head_ + head) * head_size_; }
  std::size_t value_offset() const { return std::size_t(packed_ ? value_stride_ : head_dim_) * kTile * number_size_; }
  // Returns the blocks of a sequence. They stay where they are until the sequence changes.
  std::vector<std::byte*> blocks(int sequence);
  // Writes `count` keys and values, which begin `row` floats apart, to a block's slots from `slot` on; `keys` is where
  // the head's keys begin.
  void store(const Kernels& kernels, std::byte* keys, int slot, int count, const float* key, const float* value,
             std::size_t row) const;

  KVPrecision precision() const { return precision_; }
  bool packed() const { return packed_; }
  std::size_t row_bytes() const { return head_dim_ * number_size_ + scale_size_; }
  int value_stride() const { return value_stride_; }
  int blocks_in_use() const { return taken_ - int(free_.size()); }
  std::size_t bytes_held() const { return std::size_t(taken_) * block_size_; }
  std::size_t block_bytes() const { return block_size_; }

 private:
  struct Sequence {
    std::vector<int> blocks;
    int length = 0;
  };

  const Sequence& find(int sequence) const;
  Sequence& find(int sequence) { return const_cast<Sequence&>(static_cast<const KVCache*>(this)->find(sequence)); }
  bool packs_bfloat16() const { return packed_ && precision_ == KVPrecision::bfloat16; }
  void store_floats(const Kernels& kernels, std::byte* keys, int slot, const float* key, const float* value) const;
  void store_int8(const Kernels& kernels, std::byte* keys, int slot, int count, const float* key, const float* value,
                  std::size_t row) const;
  void store_nan(std::byte* keys, int slot) const;
  template <typename F>
  void for_each_row(int sequence, F&& f);
  // Return where a slot's key and value begin, how far from there number i is, and where the key's scale is.
  std::byte* key(std::byte* keys, int slot) const { return keys + slot * together_ * number_size_; }
  std::byte* value(std::byte* keys, int slot) const {
    return keys + value_offset() + (slot / together_ * value_stride_ * together_ + slot % together_) * number_size_;
  }
  std::size_t key_step(int i) const { return (i / together_ * kTile * together_ + i % together_) * number_size_; }
  std::size_t value_step(int i) const { return i * together_ * number_size_; }
  std::byte* scale(std::byte* keys, int slot) const {
    return keys + PackedBlock(head_dim_, int(number_size_)).scales_at() + slot * scale_size_;
  }
  std::byte* block_data(int sequence, int block) { return block_at(sequences_.find(sequence)->second.blocks[block]); }
  std::byte* block_at(int block) { return slabs_[block / kSlab].data() + std::size_t(block % kSlab) * block_size_; }
  void reserve(int blocks);
  bool unused(int slab) const;
  int take();
  void release(int block);

  static constexpr int kSlab = 4;  // blocks taken from the system at once
  static constexpr std::size_t kKept = std::size_t(64) << 20;

  int n_layer_, n_head_, head_dim_, value_stride_;
  KVPrecision precision_;
  bool packed_;
  std::size_t number_size_, scale_size_;
  std::size_t together_;    // numbers of a key, or positions of a value, that lie side by side
  std::size_t head_size_;   // bytes of one head's keys and values in a block
  std::size_t block_size_;  // bytes of a block
  int next_sequence_ = 0;
  std::unordered_map<int, Sequence> sequences_;
  std::vector<Array<std::byte>> slabs_;  // empty after their memory was returned
  std::vector<int> references_;          // number of sequences per block
  std::vector<int> free_;
  int taken_ = 0;  // number of blocks that have memory
};

}  // namespace gpt2lab
