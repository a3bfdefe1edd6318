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
  // Does nothing.
  OwnCores() { CPU_ZERO(&all_); }

  // Has the cores that the calling thread may use; hyper-threads of a core count as one. Unless there are as many as
  // `threads`, this object does nothing: a pool that does not fill the machine goes where there is room.
  explicit OwnCores(int threads);

  // Puts the calling thread on core `thread` for good. Whatever the system refuses is left as it is.
  void keep(int thread) const;

  // While it lives, the calling thread stays on the first core, unless somebody has told it where to run, or does so.
  class Visit {
   public:
    explicit Visit(const OwnCores& cores);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    const OwnCores* cores_ = nullptr;  // null if the thread is where it was
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
