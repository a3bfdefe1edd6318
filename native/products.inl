// Products of float rows with float32 or bfloat16 weights; included by kernels.inl only.
#pragma once

#include "gelu.inl"
#include "kernels.h"
#include "vector.inl"

namespace gpt2lab {
namespace {

constexpr int kPass = kVectors * kWidth;  // columns that one pass over a tile computes
constexpr int kPartK = 768;               // depth of a part of a product: its operands stay in the second-level cache
constexpr int kLine = 64;                 // bytes of a cache line
constexpr int kAhead = 3072;              // distance of prefetches in bytes: farther than the CPU's own
static_assert(kTile % kPass == 0);

// Prefetches memory that is read soon, `step` bytes for each turn (iteration) of a loop.
struct Prefetch {
  const char* next;
  int step;

  // Prefetches for kTurns turns: at most two lines if `step` is less than a line or, without kEveryLine, exactly a
  // line. The CPU's own prefetcher fetches the others, and more requests would only wait for each other.
  template <int kTurns = 1, bool kEveryLine = false>
  void advance() {
    __builtin_prefetch(next);
    if (kTurns == 1 || step <= kLine - kEveryLine) {
      if (kTurns * step > kLine) __builtin_prefetch(next + kLine);
    } else {
      for (int line = kLine; line < kTurns * step; line += kLine) __builtin_prefetch(next + line);
    }
    next += kTurns * step;
  }
};

// Adds x[r] · b[columns of v] to acc[r][v], where x[r] is the next number of row r. Only every third row has a pointer,
// which saves registers: the next two rows are one and two strides away. Moves the pointers to the next numbers.
template <int kM, int kV, bool kFused, typename Element>
inline void add_turn(Vec (&acc)[kM][kV], const float* (&rows)[(kM + 2) / 3], std::size_t lda, const Element* b) {
  Vec row[kV];
  for (int v = 0; v < kV; ++v) row[v] = load(b + v * kWidth);
  for (int r = 0; r < kM; ++r) {
    const Vec x = splat(rows[r / 3][r % 3 * lda]);
    for (int v = 0; v < kV; ++v) acc[r][v] = multiply_add<kFused>(x, row[v], acc[r][v]);
  }
  for (const float*& row_start : rows) ++row_start;
}

// Adds a[r, 0 … k) · b[0 … k, columns of v] to acc[r][v], k ascending. b's rows are `ldb` elements apart. Unrolls
// the loop kTurns times, so that fewer instructions compete with the multiply-adds.
template <int kM, int kV, bool kFused = true, int kTurns = 1, typename Element>
inline void accumulate(Vec (&acc)[kM][kV], const float* a, std::size_t lda, const Element* b, std::size_t ldb, int k,
                       Prefetch prefetch) {
  const float* rows[(kM + 2) / 3];
  for (int g = 0; g < (kM + 2) / 3; ++g) rows[g] = a + 3 * g * lda;
  int i = 0;
  for (; i + kTurns <= k; i += kTurns) {
    prefetch.advance<kTurns>();
#pragma GCC unroll 4
    for (int turn = 0; turn < kTurns; ++turn) {
      add_turn<kM, kV, kFused>(acc, rows, lda, b);
      b += ldb;
      // Without this, gcc 12 loads the weights of several turns at once, for which there are no registers.
      asm("" : "+r"(b));
    }
  }
  for (; i < k; ++i, b += ldb) add_turn<kM, kV, kFused>(acc, rows, lda, b);
}

// Does the same with bfloat16 weights, which lie in pairs of inputs: [k / 2][kTile][2]. In a pair's 32 bits, the upper
// half is the second number as a float32; a left shift by 16 gives the first.
template <int kM, int kV>
inline void accumulate_pairs(Vec (&acc)[kM][kV], const float* a, std::size_t lda, const BFloat16* b, std::size_t ldb,
                             int k, Prefetch prefetch) {
  for (int i = 0; i < k; i += 2) {
    IntVec pairs[kV];
    for (int v = 0; v < kV; ++v) pairs[v] = load_ints(b + v * 2 * kWidth);
    prefetch.advance();
    for (int r = 0; r < kM; ++r) {
      const Vec x = splat(a[r * lda + i]);
      for (int v = 0; v < kV; ++v) acc[r][v] = fma(x, (Vec)(pairs[v] << 16), acc[r][v]);
    }
    if (i + 1 < k) {
      for (int v = 0; v < kV; ++v) pairs[v] = pairs[v] & splat_int(int(0xffff0000));
      for (int r = 0; r < kM; ++r) {
        const Vec x = splat(a[r * lda + i + 1]);
        for (int v = 0; v < kV; ++v) acc[r][v] = fma(x, (Vec)pairs[v], acc[r][v]);
      }
    }
    b += 2 * ldb;
  }
}

// Applies the epilogue to one vector of finished sums and stores it.
inline void finish(const Product& p, int row, int column, Vec y) {
  float* c = p.c + row * p.ldc + column;
  if (p.epilogue == Epilogue::gelu) y = gelu(y);
  const int room = p.n - column;
  if (room >= kWidth) {
    store(c, p.epilogue == Epilogue::add ? load(c) + y : y);
  } else {  // the last tile, if the matrix's width is not a multiple of kTile
    float lanes[kWidth];
    store(lanes, y);
    for (int i = 0; i < room; ++i) c[i] = p.epilogue == Epilogue::add ? c[i] + lanes[i] : lanes[i];
  }
}

// Returns the first value of a row's sums: the bias, or the sums of the earlier parts of k.
inline Vec first_sum(const Product& p, int row, int column, int k_begin) {
  const std::size_t ldp = std::size_t((p.n + kTile - 1) / kTile) * kTile;
  if (k_begin > 0) return load(p.partial + row * ldp + column);
  return p.bias ? load(p.bias + column) : Vec{};
}

inline void store_partial(const Product& p, int row, int column, Vec sum) {
  store(p.partial + row * std::size_t((p.n + kTile - 1) / kTile) * kTile + column, sum);
}

template <typename Element>
inline std::size_t tile_bytes(int k) {
  if constexpr (sizeof(Element) == sizeof(float)) return std::size_t(k) * kTile * sizeof(float);
  return std::size_t(bfloat16_blocks(k)) * kBFloat16Inputs * kTile * sizeof(Element);
}

constexpr int kCachedInputs = 1 << 20;  // bytes: half of a second-level cache, beside the weights

// Calls f for `rows` rows at a time. The prepared inputs of a group take `group_bytes`, or 0 if rows are read directly.
template <typename F>
inline void with_rows(const Product& p, int rows, int group_bytes, F&& f) {
  for (int first = 0; first < p.m; first += rows) {
    Product part = p;
    part.m = p.m - first < rows ? p.m - first : rows;
    if (group_bytes > 0) part.prepared += std::size_t(first / kRowGroup) * group_bytes;
    else part.a += first * p.lda;
    if (p.c) part.c += first * p.ldc;
    if (p.blocks) part.blocks += std::size_t(first / kRowGroup) * bfloat16_blocks(p.n) * sizeof(BFloat16Block);
    if (p.sums.data) part.sums.data += first * kTile;
    if (p.partial) part.partial += first * std::size_t(rounded_up(p.n, kTile));
    f(part);
  }
}

// Calls f for nearly equal parts of the rows, as few as possible with at most `bytes` of prepared inputs each, but with
// two groups or more.
template <typename F>
inline void with_cached_rows(const Product& p, int group_bytes, int bytes, F&& f) {
  const int most = group_bytes > bytes / 2 ? kRowPair : bytes / group_bytes / 2 * kRowPair;
  const int parts = (p.m + most - 1) / most;
  with_rows(p, rounded_up((p.m + parts - 1) / parts, kRowPair), group_bytes, f);
}

// Computes one part of k for kM rows and one pass of columns. Not inline, so that the sums get all registers.
template <typename Element, int kM, int kV, int kTurns>
__attribute__((noinline)) void block(const Product& p, int row, int column, int k_begin, int k_end, Prefetch prefetch) {
  Vec acc[kM][kV];
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) acc[r][v] = first_sum(p, row + r, column + v * kWidth, k_begin);
  constexpr int kPaired = sizeof(float) / sizeof(Element);  // inputs of one output that lie side by side
  auto* b = reinterpret_cast<const Element*>(p.b + column / kTile * tile_bytes<Element>(p.k)) + k_begin * kTile;
  const float* a = p.a + row * p.lda + k_begin;
  b += column % kTile * kPaired;
  if constexpr (kPaired > 1) accumulate_pairs(acc, a, p.lda, b, kTile, k_end - k_begin, prefetch);
  else accumulate<kM, kV, true, kTurns>(acc, a, p.lda, b, kTile, k_end - k_begin, prefetch);
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) {
      const int at = column + v * kWidth;
      k_end == p.k ? finish(p, row + r, at, acc[r][v]) : store_partial(p, row + r, at, acc[r][v]);
    }
}

// The rows of one of `groups` equal groups.
struct Group {
  int begin, count;
  Group(int rows, int group, int groups) : begin(int(std::size_t(rows) * group / groups)) {
    count = int(std::size_t(rows) * (group + 1) / groups) - begin;
  }
};

constexpr int kCachedRows = 96;  // whose part of k stays in the second-level cache, beside the weights

template <typename Element>
void float_rows(const Product& p, int first_tile, int last_tile) {
  // Bytes that one turn of accumulate() reads: a row of floats, or of pairs of bfloat16.
  constexpr int kTurn = kTile * int(sizeof(float)), kInputs = sizeof(float) / sizeof(Element);
  const std::size_t size = tile_bytes<Element>(p.k);
  const auto* bytes = reinterpret_cast<const char*>(p.b);
  if (p.m == 1) {  // a whole tile at once, in the order it lies in memory
    for (int t = first_tile; t < last_tile; ++t)
      block<Element, 1, kTile / kWidth, 1>(p, 0, t * kTile, 0, p.k, {bytes + t * size + kAhead, kTurn});
    return;
  }
  const int groups = (p.m + kRows - 1) / kRows;
  const int part_k = groups == 1 || !p.partial ? p.k : kPartK;
  constexpr int kPasses = kTile / kPass;
  constexpr int kTurns = kInputs > 1 || kEmulatesFma ? 1 : 4;
  const bool one_by_one = groups == kPasses;  // such products wait for memory and need every prefetch early
  for (int k = 0; k < p.k; k += part_k) {
    const int k_end = k + part_k < p.k ? k + part_k : p.k;
    for (int column = first_tile * kTile; column < last_tile * kTile; column += kPass)
      for (int g = 0; g < groups; ++g) {
        const char* part = bytes + column / kTile * size + std::size_t(k) * kTile * sizeof(Element);
        Prefetch prefetch{part + kAhead, kTurn};
        if (groups * kPasses > 1) {  // while the tile is in the cache, each pass over it prefetches a share of the next
          const int share = column % kTile / kPass * groups + g;
          prefetch.step = kTurn / (groups * kPasses);
          prefetch.next = part + size + std::size_t(share) * prefetch.step * ((k_end - k) / kInputs);
        }
        const Group rows(p.m, g, groups);
        with_count<kRows>(rows.count, [&]<int kM>() {
          if (one_by_one) block<Element, kM, kVectors, 1>(p, rows.begin, column, k, k_end, prefetch);
          else block<Element, kM, kVectors, kTurns>(p, rows.begin, column, k, k_end, prefetch);
        });
      }
  }
}

template <typename Element>
void float_product(const Product& p, int first_tile, int last_tile) {
  const int parts = p.m < 2 * kCachedRows ? 1 : p.m / kCachedRows;
  with_rows(p, rounded_up((p.m + parts - 1) / parts, kRows), 0,
            [&](const Product& part) { float_rows<Element>(part, first_tile, last_tile); });
}

}  // namespace
}  // namespace gpt2lab
