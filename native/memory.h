// Large arrays from the operating system: zeroed, aligned, and in huge pages where available.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace gpt2lab {

// Bytes from the system. Movable, not copyable. The constructor throws std::bad_alloc when there is no memory.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  std::size_t mapped_ = 0;
};

// An array of `size` numbers, initially zero, aligned to a cache line.
template <typename T>
class Array {
 public:
  Array() = default;
  explicit Array(std::size_t size) : memory_(checked(size) * sizeof(T)), size_(size) {}

  T* data() { return static_cast<T*>(memory_.data()); }
  const T* data() const { return static_cast<const T*>(memory_.data()); }
  std::size_t size() const { return size_; }

 private:
  static std::size_t checked(std::size_t size) {
    if (size > (SIZE_MAX >> 2) / sizeof(T)) throw std::bad_alloc();
    return size;
  }

  Memory memory_;
  std::size_t size_ = 0;
};

using FloatArray = Array<float>;

}  // namespace gpt2lab
