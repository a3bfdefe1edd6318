// How the CPU rounds on this thread while the core computes.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace gpt2lab {

// A guard: while it lives, the thread rounds to nearest and keeps subnormal numbers, whatever the program around the
// core has set (some libraries flush subnormals to zero). It restores the thread's own mode.
class FloatMode {
 public:
#if defined(__SSE2__)
  FloatMode() : before_(_mm_getcsr()) { set(kDefault); }
  ~FloatMode() { set(before_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all exceptions masked
  void set(unsigned mode) {
    if (_mm_getcsr() != mode) _mm_setcsr(mode);
  }
  unsigned before_;
#elif defined(__aarch64__)
  FloatMode() : before_(get()) { set(0); }
  ~FloatMode() { set(before_); }

 private:
  static std::uint64_t get() {
    std::uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(std::uint64_t mode) {
    if (get() != mode) asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
  }
  std::uint64_t before_;
#else
  FloatMode() {}
#endif

 public:
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;
};

}  // namespace gpt2lab
