// The arithmetic of the transformer, as a table of functions with one implementation per instruction set.
//
// Contract: every output value is one chain of operations in one fixed order (dot products run over k = 0, 1, 2, …
// into a single accumulator), so it does not depend on how many rows are computed together, on how the columns are
// split over threads, or on the cache blocking. Callers have checked every size; kernels check nothing.
#pragma once

#include <cstddef>

namespace gpt2lab {

// Matrices are packed into tiles of kTile output columns: tile t holds [k][kTile] for columns t*kTile ….
// KV cache blocks hold kTile positions, so that scores of a block come out of the same kind of product.
constexpr int kTile = 32;

enum class Epilogue { store, gelu, add };  // c = y | c = gelu(y) | c = c + y

// y[m, n] = a[m, k] · b[k, n] + bias[n], then the epilogue into c.
struct Product {
  const float* a;       // [m, k], rows lda apart
  std::size_t lda;
  const float* b;       // packed [tiles][k][kTile]
  const float* bias;    // [n] padded to whole tiles, or null for none
  float* c;             // [m, n], rows ldc apart
  std::size_t ldc;
  float* partial;       // scratch [m, tiles * kTile] for sums between blocks of k, or null to run over k at once
  int m, k, n;
  Epilogue epilogue;
};

// Attention of `m` rows of one sequence (consecutive positions) for one head.
struct Attention {
  const float* q;             // [m, head_dim], rows ldq apart
  std::size_t ldq;
  const float* const* keys;   // per block: [head_dim][kTile], positions innermost
  const float* const* values; // per block: [kTile][value_stride]
  int value_stride;           // head_dim rounded up to kTile; the padding is zero
  float* out;                 // [m, head_dim], rows ldo apart
  std::size_t ldo;
  float* scores;              // scratch [m, score_stride]
  std::size_t score_stride;   // at least the number of blocks * kTile
  int m, head_dim;
  int first_position;         // of row 0; row r sees positions 0 … first_position + r
  float scale;                // 1 / sqrt(head_dim)
};

struct Kernels {
  const char* name;
  int max_rows;  // rows that one pass over a tile computes together; attention takes at most this many
  void (*product)(const Product&, int first_tile, int last_tile);
  void (*attention)(const Attention&);
  void (*layer_norm)(const float* x, const float* gain, const float* bias, float epsilon, int n, float* out);
  double (*exp)(const double* x, int n, double* out);                // out = e^x for x ≤ 0; returns their sum
  double (*exp_sum)(const float* x, int n, double largest);  // sum of e^(x - largest)
};

const Kernels& baseline_kernels();  // NEON on Arm, SSE2 on x86-64, whatever the compiler has elsewhere
#ifdef GPT2LAB_X86_KERNELS
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

}  // namespace gpt2lab
