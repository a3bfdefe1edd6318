// What this machine can do at most: bytes read per second from memory, multiplications and additions per second in
// float32, in 8-bit integers (VNNI, or AVX2 without it) and in tiles (AMX, 8-bit and bfloat16), where the CPU and the
// compiler have them.
//
// limits THREADS REPEATS MEGABYTES... prints one JSON object: every repeat's figures, bandwidth for each buffer size.
// Compiled by machine_limits.py with -O3 and the flags of an instruction set; it is not part of the package.
#include <sys/mman.h>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__AVX2__)
#include <immintrin.h>
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

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

// The buffer is read over and over, as weights are: what of it stays in the last cache counts.
double read_bandwidth(const float* data, std::size_t count, int threads) {
  const std::size_t passes = 1 + (std::size_t(1) << 30) / (count * sizeof(float));
  const double seconds = time_threads(threads, [&](int t) {
    const std::size_t unit = 8 * kWidth, parts = count / unit;
    const float* begin = data + parts * t / threads * unit;
    const float* end = data + parts * (t + 1) / threads * unit;
    Vec sums[8] = {};
    for (std::size_t pass = 0; pass < passes; ++pass)
      for (const float* p = begin; p < end; p += unit)
        for (int i = 0; i < 8; ++i) sums[i] += *reinterpret_cast<const Vec*>(p + i * kWidth);
    for (int i = 0; i < 8; ++i) sink = sums[i][0];
  });
  return passes * count * sizeof(float) / seconds / 1e9;
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

#if defined(__AVX512VNNI__)
typedef __m512i Bytes;
Bytes dot(Bytes sum, Bytes a, Bytes b) { return _mm512_dpbusd_epi32(sum, a, b); }
#elif defined(__AVXVNNI__)
typedef __m256i Bytes;
Bytes dot(Bytes sum, Bytes a, Bytes b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#elif defined(__AVX2__)
typedef __m256i Bytes;
Bytes dot(Bytes sum, Bytes a, Bytes b) {
  asm volatile("" : "+x"(a));  // or the product, which never changes, would be computed once
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#endif

#if defined(__AVX2__)
double int8_peak(int threads) {
  constexpr int kSteps = 8000000, kChains = 12;
  const double seconds = time_threads(threads, [&](int) {
    Bytes sums[kChains], a, b;
    std::memset(&a, 3, sizeof a);
    std::memset(&b, 1, sizeof b);
    for (int i = 0; i < kChains; ++i) std::memset(&sums[i], i, sizeof sums[i]);
    for (int step = 0; step < kSteps; ++step) {
      for (int i = 0; i < kChains; ++i) sums[i] = dot(sums[i], a, b);
    }
    for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(sums[i]));
  });
  return 2.0 * sizeof(Bytes) * kChains * kSteps * threads / seconds / 1e9;
}
#endif

#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES
// Linux grants the tile registers on request.
bool tiles_granted() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

struct TileConfig {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  unsigned short bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

template <bool kInt8>
double tile_peak(int threads) {
  constexpr int kSteps = 1000000;
  const double seconds = time_threads(threads, [&](int) {
    alignas(64) TileConfig config;
    alignas(64) char zeros[1024] = {};
    asm volatile("" : : "r"(&config), "r"(zeros) : "memory");  // gcc 12 takes the stores above for dead
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (kInt8) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
      } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_release();
  });
  return 2.0 * 4 * kSteps * 16 * 16 * (kInt8 ? 64 : 32) * threads / seconds / 1e9;
}
#endif

template <typename Measure>
void print_figures(int repeats, Measure measure) {
  for (int r = 0; r < repeats; ++r) std::printf("%s%.2f", r ? ", " : "[", measure());
  std::printf("]");
}

void print_bandwidth(std::size_t megabytes, int threads, int repeats) {
  const std::size_t bytes = megabytes << 20, huge = std::size_t(2) << 20;
  void* all = mmap(nullptr, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) std::exit(1);
  float* data = reinterpret_cast<float*>((reinterpret_cast<std::size_t>(all) + huge - 1) / huge * huge);
#ifdef MADV_HUGEPAGE
  madvise(data, bytes, MADV_HUGEPAGE);
#endif
  std::memset(data, 0, bytes);
  print_figures(repeats, [&] { return read_bandwidth(data, bytes / sizeof(float), threads); });
  munmap(all, bytes + huge);
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const int threads = std::atoi(argv[1]), repeats = std::atoi(argv[2]);
  std::printf("{\"read_gb_s\": {");
  for (int i = 3; i < argc; ++i) {
    std::printf("%s\"%s\": ", i == 3 ? "" : ", ", argv[i]);
    print_bandwidth(std::atoi(argv[i]), threads, repeats);
  }
  std::printf("}, \"float32_gflop_s\": ");
  print_figures(repeats, [&] { return float32_peak(threads); });
#if defined(__AVX2__)
  std::printf(", \"int8_gop_s\": ");
  print_figures(repeats, [&] { return int8_peak(threads); });
#endif
#ifdef HAS_TILES
  if (tiles_granted()) {
    std::printf(", \"int8_tiles_gop_s\": ");
    print_figures(repeats, [&] { return tile_peak<true>(threads); });
    std::printf(", \"bfloat16_tiles_gflop_s\": ");
    print_figures(repeats, [&] { return tile_peak<false>(threads); });
  }
#endif
  std::printf("}\n");
}
