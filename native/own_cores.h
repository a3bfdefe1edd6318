// Keeps each thread of a pool on a core of its own while it computes.
//
// Left to the system, two threads of a pool often share a core while the other core runs something short, such as a
// server's event loop, and both wait for each other.
#pragma once

#if defined(__linux__)
#include <sched.h>

#include <vector>
#endif

namespace gpt2lab {

#if defined(__linux__)

class OwnCores {
 public:
  // Binds no thread.
  OwnCores() { CPU_ZERO(&all_); }

  // Finds the cores that the calling thread may use; hyper-threads of a core count as one. Binds threads only if there
  // are exactly `threads` cores: the system places a smaller or larger pool better.
  explicit OwnCores(int threads);

  // Binds the calling thread to core `thread` for good. Whatever the system refuses is left as it is.
  void keep(int thread) const;

  // Binds the calling thread to the first core while this object lives. Leaves its affinity alone if someone else has
  // set it before, or sets it meanwhile.
  class Visit {
   public:
    explicit Visit(const OwnCores& cores);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    const OwnCores* cores_ = nullptr;  // null if the thread was not bound
  };

 private:
  cpu_set_t all_;
  std::vector<cpu_set_t> cores_;
};

#else

class OwnCores {
 public:
  OwnCores() = default;
  explicit OwnCores(int) {}
  void keep(int) const {}
  struct Visit {
    explicit Visit(const OwnCores&) {}
  };
};

#endif

}  // namespace gpt2lab
