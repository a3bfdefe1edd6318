// Large arrays of floats straight from the operating system: zeroed, aligned, in huge pages where it has them.
#pragma once

#include <cstddef>
#include <utility>

namespace gpt2lab {

// Owns `size` floats, all zero at first; throws std::bad_alloc when there is no memory. Moves, does not copy.
class FloatArray {
 public:
  FloatArray() = default;
  explicit FloatArray(std::size_t size);
  ~FloatArray();
  FloatArray(FloatArray&& other) noexcept { *this = std::move(other); }
  FloatArray& operator=(FloatArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }

  float* data() { return data_; }
  const float* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  float* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;  // bytes taken from the system
};

}  // namespace gpt2lab
