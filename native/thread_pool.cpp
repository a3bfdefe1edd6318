#include "thread_pool.h"

#include "float_mode.h"
#include "process.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gpt2lab {
namespace {

constexpr int kSpins = 4000;  // some tens of microseconds

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void ThreadPool::wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

void ThreadPool::member(Team& team, int thread) {
  const FloatMode mode;
  team.cores.keep(thread);
  for (std::uint32_t seen = 0;; ++seen) {
    wait_while(team.round, seen);
    if (team.stopping.load(std::memory_order_acquire)) return;
    (*team.work)(thread);
    barrier();
  }
}

void ThreadPool::start() {
  if (team_) (void)team_.release();  // in a forked child: the team's threads do not exist here
  team_ = std::make_unique<Team>(keeps_to_cores_ ? OwnCores(size_) : OwnCores());
  owner_ = process_id();
  try {
    for (int thread = 1; thread < size_; ++thread)
      team_->threads.emplace_back([this, team = team_.get(), thread] { member(*team, thread); });
  } catch (...) {
    stop();
    throw;
  }
}

bool ThreadPool::is_ours() const { return team_ && owner_ == process_id(); }

void ThreadPool::keep_to_cores() {
  if (!keeps_to_cores_ && is_ours()) stop();
  keeps_to_cores_ = true;
}

void ThreadPool::stop() {
  team_->stopping.store(true, std::memory_order_release);
  team_->round.fetch_add(1, std::memory_order_acq_rel);
  team_->round.notify_all();
  for (std::thread& thread : team_->threads) thread.join();
  team_.reset();
}

void ThreadPool::run(const std::function<void(int)>& work) {
  const FloatMode mode;
  if (size_ == 1) return work(0);
  if (!is_ours()) start();
  const OwnCores::Visit visit(team_->cores);
  team_->work = &work;
  team_->round.fetch_add(1, std::memory_order_acq_rel);
  team_->round.notify_all();
  work(0);
  barrier();
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  Team& team = *team_;
  const std::uint32_t phase = team.phase.load(std::memory_order_acquire);
  if (team.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == std::uint32_t(size_)) {
    team.arrived.store(0, std::memory_order_relaxed);
    team.phase.fetch_add(1, std::memory_order_acq_rel);
    team.phase.notify_all();
  } else {
    wait_while(team.phase, phase);
  }
}

ThreadPool::~ThreadPool() {
  if (!team_) return;
  if (owner_ == process_id()) stop();
  else (void)team_.release();
}

}  // namespace gpt2lab
