#include "memory.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

#include <cstdint>
#include <new>

namespace gpt2lab {

#if defined(_WIN32)

// Windows gives large pages only to users with a special right, so pages are small.
Memory::Memory(std::size_t bytes) {
  if (bytes == 0) return;
  data_ = VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  if (!data_) throw std::bad_alloc();
  mapped_ = bytes;
}

Memory::~Memory() {
  if (data_) VirtualFree(data_, 0, MEM_RELEASE);
}

#else

namespace {

constexpr std::size_t kHugePage = std::size_t(2) << 20;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Memory::Memory(std::size_t bytes) {
  if (bytes == 0) return;
  const bool huge = bytes >= kHugePage;
  mapped_ = huge ? round_up(bytes, kHugePage) : round_up(bytes, 4096);
  // Reserve one huge page more than needed, so that the mapping can be cut to an aligned start.
  const std::size_t reserve = huge ? mapped_ + kHugePage : mapped_;
  void* p = mmap(nullptr, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto start = reinterpret_cast<std::uintptr_t>(p);
  if (huge) {
    const std::uintptr_t aligned = round_up(start, kHugePage);
    if (aligned > start) munmap(p, aligned - start);
    const std::size_t tail = start + reserve - (aligned + mapped_);
    if (tail > 0) munmap(reinterpret_cast<void*>(aligned + mapped_), tail);
    start = aligned;
#ifdef MADV_HUGEPAGE
    madvise(reinterpret_cast<void*>(start), mapped_, MADV_HUGEPAGE);
#endif
  }
  data_ = reinterpret_cast<void*>(start);
}

Memory::~Memory() {
  if (data_) munmap(data_, mapped_);
}

#endif

}  // namespace gpt2lab
