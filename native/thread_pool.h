// A fixed set of threads that run one function together, with a barrier cheap enough for every layer of every token.
//
// A waiting thread spins for some microseconds, then sleeps in the kernel: a busy decode loop never pays for a wake-up,
// and an idle program uses no CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "own_cores.h"

namespace gpt2lab {

class ThreadPool {
 public:
  // `threads` ≥ 1 includes the calling thread; the first run starts the others.
  explicit ThreadPool(int threads) : size_(threads) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // From the next run on, each thread keeps to a core of its own; see own_cores.h. It helps beside threads that compute
  // briefly but often, and does harm beside a program that fills a core. Must not be called while work runs.
  void keep_to_cores();

  // Calls work(thread) for thread = 0 … size - 1 at once and returns when all calls have ended. `work` must not throw.
  // Throws std::system_error, before any call, if the threads cannot be started.
  void run(const std::function<void(int)>& work);

  // Call it inside work. It returns when every thread of the pool has called it as often as this one.
  void barrier();

 private:
  // The state shared with the threads. A forked child abandons it, together with the threads that it does not have.
  struct Team {
    explicit Team(const OwnCores& own) : cores(own) {}

    const OwnCores cores;
    std::atomic<std::uint32_t> round{0}, arrived{0}, phase{0};
    std::atomic<bool> stopping{false};
    const std::function<void(int)>* work = nullptr;
    std::vector<std::thread> threads;
  };

  void start();
  void stop();
  bool is_ours() const;  // whether the team runs in this process
  static void wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old);
  void member(Team& team, int thread);

  int size_;
  bool keeps_to_cores_ = false;
  long owner_ = 0;  // the process whose threads these are: fork() copies this object but not its threads
  std::unique_ptr<Team> team_;
};

// One thread's share of `count` things.
struct Share {
  int begin, end;
  Share(int first, int last) : begin(first), end(last) {}
  Share(int count, int thread, int threads)
      : begin(int(std::int64_t(count) * thread / threads)), end(int(std::int64_t(count) * (thread + 1) / threads)) {}
};

}  // namespace gpt2lab
