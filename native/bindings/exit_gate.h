// Keeps the interpreter alive while other threads compute: they would abort the process if they asked for the GIL of an
// interpreter that has ended.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace gpt2lab {

class ExitGate {
 public:
  struct Visit;

  // Counts a call in. Once the interpreter ends, a caller waits here for ever. Call it without the GIL.
  void enter() {
    ++calls_;
    if (!closed_) return;
    --calls_;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  void leave() { --calls_; }

  // Returns when the calls under way have ended, at once in a forked process, which lacks the threads that would end
  // them.
  void close() {
    closed_ = true;
    while (calls_ > 0 && owner_ == getpid()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  std::atomic<int> calls_{0};
  std::atomic<bool> closed_{false};
  pid_t owner_ = getpid();
};

inline ExitGate exit_gate;

// A call, counted in for as long as this lives, whether or not the GIL is held meanwhile. Made with the GIL.
struct ExitGate::Visit {
  Visit() {
    nanobind::gil_scoped_release release;
    exit_gate.enter();
  }
  ~Visit() { exit_gate.leave(); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
};

}  // namespace gpt2lab
