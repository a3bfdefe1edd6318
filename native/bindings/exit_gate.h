// Keeps the interpreter alive while other threads compute: a thread that asks for the GIL of an interpreter that has
// ended aborts the process.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "process.h"

namespace gpt2lab {

class ExitGate {
 public:
  struct Visit;

  // Counts a call as under way. Once the interpreter ends, callers wait here forever. Call it without the GIL.
  void enter() {
    ++calls_;
    if (!closed_) return;
    --calls_;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  void leave() { --calls_; }

  // Waits until the calls under way have ended. In a forked process, which lacks the threads that run them, returns at
  // once.
  void close() {
    closed_ = true;
    while (calls_ > 0 && owner_ == process_id()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  std::atomic<int> calls_{0};
  std::atomic<bool> closed_{false};
  long owner_ = process_id();
};

inline ExitGate exit_gate;

// A call that counts as under way for the lifetime of this object, whether or not the thread holds the GIL meanwhile.
// Construct it with the GIL.
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
