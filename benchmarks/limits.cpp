// What this machine can do at most: bytes read per second from memory, float32 multiply-adds per second.
//
// limits THREADS MEGABYTES REPEATS prints one JSON object with every repeat's figures. Compiled by machine_limits.py
// with -O3 -march=native; it is not part of the package.
#include <sys/mman.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
typedef float Vec __attribute__((vector_size(kWidth * 4)));

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One thread a CPU: so short a run would end before the system had moved two threads apart.
void pin([[maybe_unused]] int thread) {
#ifdef __linux__
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0, nth = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed) && nth++ == thread) {
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      sched_setaffinity(0, sizeof one, &one);
      return;
    }
#endif
}

// Seconds from the moment all threads are ready until the last has done its work.
template <typename Work>
double time_threads(int threads, Work work) {
  std::atomic<int> ready{0};
  std::vector<double> begin(threads), end(threads);
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t)
    team.emplace_back([&, t] {
      pin(t);
      ++ready;
      while (ready < threads) {}
      begin[t] = now();
      work(t);
      end[t] = now();
    });
  for (auto& thread : team) thread.join();
  return *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
}

volatile float sink;

double read_bandwidth(const float* data, std::size_t count, int threads) {
  const double seconds = time_threads(threads, [&](int t) {
    const std::size_t unit = 8 * kWidth, parts = count / unit;
    const float* p = data + parts * t / threads * unit;
    const float* end = data + parts * (t + 1) / threads * unit;
    Vec sums[8] = {};
    for (; p < end; p += unit)
      for (int i = 0; i < 8; ++i) sums[i] += *reinterpret_cast<const Vec*>(p + i * kWidth);
    for (int i = 0; i < 8; ++i) sink = sums[i][0];
  });
  return count * sizeof(float) / seconds / 1e9;
}

double float32_peak(int threads) {
  constexpr int kSteps = 4000000, kChains = 12;
  const double seconds = time_threads(threads, [&](int) {
    Vec acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = Vec{} + sink + float(i);  // distinct, or they would be computed once
    const Vec x = Vec{} + 0.999f, y = Vec{} + 0.001f;
    for (int step = 0; step < kSteps; ++step) {
      for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * x + y;  // contracted to a fused multiply-add
    }
    for (int i = 0; i < kChains; ++i) sink = acc[i][0];
  });
  return 2.0 * kWidth * kChains * kSteps * threads / seconds / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = std::atoi(argv[1]), repeats = std::atoi(argv[3]);
  const std::size_t bytes = std::size_t(std::atoi(argv[2])) << 20, huge = std::size_t(2) << 20;
  char* p = static_cast<char*>(mmap(nullptr, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (p == MAP_FAILED) return 1;
  p = reinterpret_cast<char*>((reinterpret_cast<std::size_t>(p) + huge - 1) / huge * huge);
#ifdef MADV_HUGEPAGE
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
  std::memset(p, 0, bytes);
  std::printf("{\"read_gb_s\": [");
  for (int r = 0; r < repeats; ++r)
    std::printf("%s%.2f", r ? ", " : "", read_bandwidth(reinterpret_cast<float*>(p), bytes / 4, threads));
  std::printf("], \"float32_gflop_s\": [");
  for (int r = 0; r < repeats; ++r) std::printf("%s%.1f", r ? ", " : "", float32_peak(threads));
  std::printf("]}\n");
}
