// The kernels, written once and compiled once per instruction set (kernels_*.cpp).
//
// Everything sits in an unnamed namespace and nothing of the standard library's templates is used: an inline function
// shared with other files could be linked in its AVX-512 form and run on a CPU that lacks it.
#include "kernels.h"
#include "reductions.inl"
#include "vector.inl"

namespace gpt2lab {
namespace {

constexpr int kPass = kVectors * kWidth;  // columns that one pass over a tile computes
constexpr int kBlockK = 768;              // depth of a block of a product: its operands stay in the second cache
constexpr int kPrefetchRows = 24;         // rows of a tile to ask for ahead: 3 kB, more than the CPU does by itself
static_assert(kTile % kPass == 0);

// tanh-approximated GELU as in the original model.py, with 0.5 · (1 + tanh u) written as 1 / (1 + e^-2u).
inline Vec gelu(Vec x) {
  const Vec u = (x + x * x * x * 0.044715f) * 0.7978845608028654f;
  return x / (exp(u * -2.0f) + 1.0f);
}

// acc[r][v] += a[r, 0 … k) · b[0 … k, columns of v], k ascending. b's rows are `ldb` floats apart.
template <int kM, int kV>
inline void accumulate(Vec (&acc)[kM][kV], const float* a, std::size_t lda, const float* b, std::size_t ldb, int k) {
  for (int i = 0; i < k; ++i) {
    Vec row[kV];
    for (int v = 0; v < kV; ++v) row[v] = load(b + v * kWidth);
    for (int v = 0; v < kV; v += 16 / kWidth) __builtin_prefetch(b + kPrefetchRows * kTile + v * kWidth);
    for (int r = 0; r < kM; ++r) {
      const Vec x = splat(a[r * lda + i]);
      for (int v = 0; v < kV; ++v) acc[r][v] = fma(x, row[v], acc[r][v]);
    }
    b += ldb;
  }
}

template <int kM, int kV>
inline void finish(Vec (&acc)[kM][kV], const Product& p, int row, int column) {
  for (int r = 0; r < kM; ++r) {
    float* c = p.c + (row + r) * p.ldc + column;
    for (int v = 0; v < kV; ++v, c += kWidth) {
      Vec y = acc[r][v];
      if (p.epilogue == Epilogue::gelu) y = gelu(y);
      const int room = p.n - column - v * kWidth;
      if (room >= kWidth) {
        store(c, p.epilogue == Epilogue::add ? load(c) + y : y);
      } else {  // the last tile of a matrix whose width is not a multiple of it
        float lanes[kWidth];
        store(lanes, y);
        for (int i = 0; i < room; ++i) c[i] = p.epilogue == Epilogue::add ? c[i] + lanes[i] : lanes[i];
      }
    }
  }
}

// One block of k of kM rows and one pass of columns: begin from the bias or the sums so far, end with the epilogue.
template <int kM, int kV>
void block(const Product& p, int row, int column, int k_begin, int k_end) {
  const int tile = column / kTile, offset = column % kTile;
  const std::size_t ldp = std::size_t((p.n + kTile - 1) / kTile) * kTile;
  Vec acc[kM][kV];
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) {
      const int at = column + v * kWidth;
      if (k_begin > 0) acc[r][v] = load(p.partial + (row + r) * ldp + at);
      else acc[r][v] = p.bias ? load(p.bias + at) : Vec{};
    }
  const float* b = p.b + (std::size_t(tile) * p.k + k_begin) * kTile + offset;
  accumulate<kM, kV>(acc, p.a + row * p.lda + k_begin, p.lda, b, kTile, k_end - k_begin);
  if (k_end == p.k) return finish<kM, kV>(acc, p, row, column);
  for (int r = 0; r < kM; ++r)
    for (int v = 0; v < kV; ++v) store(p.partial + (row + r) * ldp + column + v * kWidth, acc[r][v]);
}

using Block = void (*)(const Product&, int row, int column, int k_begin, int k_end);

// blocks[m] computes m rows.
template <int... kM>
struct BlockTable {
  static constexpr Block blocks[] = {nullptr, block<kM, kVectors>...};
};
#define GPT2LAB_ROW_COUNTS_2 1, 2
#define GPT2LAB_ROW_COUNTS_6 GPT2LAB_ROW_COUNTS_2, 3, 4, 5, 6
#define GPT2LAB_ROW_COUNTS_12 GPT2LAB_ROW_COUNTS_6, 7, 8, 9, 10, 11, 12
#if defined(__AVX512F__)
#define GPT2LAB_ROW_COUNTS GPT2LAB_ROW_COUNTS_12
#elif defined(__AVX2__) || (defined(__ARM_NEON) && defined(__aarch64__))
#define GPT2LAB_ROW_COUNTS GPT2LAB_ROW_COUNTS_6
#else
#define GPT2LAB_ROW_COUNTS GPT2LAB_ROW_COUNTS_2
#endif
using Blocks = BlockTable<GPT2LAB_ROW_COUNTS>;

void product(const Product& p, int first_tile, int last_tile) {
  if (p.m == 1) {  // a whole tile at once, in the order it lies in memory
    for (int t = first_tile; t < last_tile; ++t) block<1, kTile / kWidth>(p, 0, t * kTile, 0, p.k);
    return;
  }
  const int groups = (p.m + kRows - 1) / kRows;
  const int block_k = groups == 1 || !p.partial ? p.k : kBlockK;
  for (int k = 0; k < p.k; k += block_k) {
    const int k_end = k + block_k < p.k ? k + block_k : p.k;
    for (int column = first_tile * kTile; column < last_tile * kTile; column += kPass)
      for (int g = 0; g < groups; ++g) {
        const int row = int(std::size_t(p.m) * g / groups), next = int(std::size_t(p.m) * (g + 1) / groups);
        Blocks::blocks[next - row](p, row, column, k, k_end);
      }
  }
}

template <int kM>
void score_block(const Attention& a, int block_index) {
  for (int c = 0; c < kTile; c += kPass) {
    Vec acc[kM][kVectors] = {};
    accumulate<kM, kVectors>(acc, a.q, a.ldq, a.keys[block_index] + c, kTile, a.head_dim);
    for (int r = 0; r < kM; ++r)
      for (int v = 0; v < kVectors; ++v)
        store(a.scores + r * a.score_stride + block_index * kTile + c + v * kWidth, acc[r][v] * a.scale);
  }
}

// Turns one row of scores into unnormalised probabilities up to `padded`, zero beyond `length`; returns 1 / their sum.
inline float softmax(float* s, int length, int padded) {
  for (int i = length; i < padded; ++i) s[i] = -__builtin_inff();
  Vec top = splat(-__builtin_inff());
  for (int i = 0; i < padded; i += kWidth) top = vmax(top, load(s + i));
  const Vec largest = splat(max(top));
  Vec total = {};
  for (int i = 0; i < padded; i += kWidth) {
    const Vec e = exp(load(s + i) - largest);
    store(s + i, e);
    total += e;
  }
  return 1.0f / sum(total);
}

// acc[r] += probabilities[first … last) · values of those positions, for kM rows.
template <int kM>
inline void add_values(Vec (&acc)[kM][kVectors], const Attention& a, int row, int column, int first, int last) {
  for (int position = first; position < last;) {
    const int slot = position % kTile, count = kTile - slot < last - position ? kTile - slot : last - position;
    const float* values = a.values[position / kTile] + std::size_t(slot) * a.value_stride + column;
    accumulate<kM, kVectors>(acc, a.scores + row * a.score_stride + position, a.score_stride, values, a.value_stride,
                             count);
    position += count;
  }
}

// Reads the values of visible positions only: what lies in the others may be infinite, and 0 · ∞ is not 0. All rows
// see the positions up to the first row's; the few beyond are added row by row.
template <int kM>
void mix_values(const Attention& a, const float* norm) {
  for (int c = 0; c < a.value_stride; c += kPass) {
    Vec acc[kM][kVectors] = {};
    const int shared = a.first_position + 1;
    add_values<kM>(acc, a, 0, c, 0, shared);
    for (int r = 1; r < kM; ++r) {
      Vec own[1][kVectors];
      for (int v = 0; v < kVectors; ++v) own[0][v] = acc[r][v];
      add_values<1>(own, a, r, c, shared, shared + r);
      for (int v = 0; v < kVectors; ++v) acc[r][v] = own[0][v];
    }
    for (int r = 0; r < kM; ++r) {
      float* out = a.out + r * a.ldo + c;
      for (int v = 0; v < kVectors; ++v) {
        const Vec y = acc[r][v] * norm[r];
        const int room = a.head_dim - c - v * kWidth;
        if (room >= kWidth) {
          store(out + v * kWidth, y);
        } else {
          float lanes[kWidth];
          store(lanes, y);
          for (int i = 0; i < room; ++i) out[v * kWidth + i] = lanes[i];
        }
      }
    }
  }
}

template <int... kM>
struct AttentionTable {
  using Score = void (*)(const Attention&, int);
  using Mix = void (*)(const Attention&, const float*);
  static constexpr Score score[] = {nullptr, score_block<kM>...};
  static constexpr Mix mix[] = {nullptr, mix_values<kM>...};
};
using AttentionRows = AttentionTable<GPT2LAB_ROW_COUNTS>;

void attention(const Attention& a) {
  const int blocks = (a.first_position + a.m - 1) / kTile + 1;
  for (int b = 0; b < blocks; ++b) AttentionRows::score[a.m](a, b);
  float norm[kRows];
  for (int r = 0; r < a.m; ++r)
    norm[r] = softmax(a.scores + r * a.score_stride, a.first_position + r + 1, blocks * kTile);
  AttentionRows::mix[a.m](a, norm);
}

}  // namespace

const Kernels& GPT2LAB_KERNELS() {
  static constexpr Kernels table{GPT2LAB_KERNELS_NAME, kRows, product, attention, layer_norm, exp_all, exp_sum};
  return table;
}

}  // namespace gpt2lab
