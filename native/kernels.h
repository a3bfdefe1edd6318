// The arithmetic of the transformer, as a table of functions with one implementation per instruction set.
//
// Contract: every output value is one chain of operations in one fixed order, so it does not depend on how many rows
// are computed together, on how the columns are split over threads, or on the cache blocking. Float products run over
// k = 0, 1, 2, … into a single accumulator. Products of integers run over blocks of k, whose sums are exact. A matrix
// unit's bfloat16 products run over pairs of k, in the unit's own arithmetic, also into a single accumulator.
// Callers have checked every size; kernels check nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "meter.h"
#include "precision.h"

namespace gpt2lab {

// The width of a tile: matrices are packed into tiles of kTile output columns; see packing.h. A block of the KV cache
// holds kTile positions, so the scores of a block are computed like one tile of a product.
constexpr int kTile = 32;
constexpr int kHalfTile = kTile / 2;  // outputs that one instruction of a matrix unit computes

constexpr float kLog2E = 1.44269504f;  // attention multiplies scores by it, and weighs powers of two

// Positions whose scores attention weighs together, a multiple of kTile.
constexpr int kSpan = 256;

// The size of a group of rows of rounded inputs. A group's part of a block is a few tiles of a matrix unit.
constexpr int kRowGroup = 16;
constexpr int kRowPair = 2 * kRowGroup;  // rows that the kernels of a matrix unit multiply together in bfloat16

// Inputs of one group of rows as bfloat16, for matrix units that multiply bfloat16.
struct alignas(64) BFloat16Block {
  BFloat16 x[kRowGroup][kBFloat16Inputs];
};

constexpr int kMaxRows = 512;  // rows of one product
// Sums of all rows for one tile, and weights made ready, as int8, of the blocks of a tile that are multiplied together.
constexpr int kPartBlocks = 3;
constexpr std::size_t kScratchBytes = kMaxRows * kTile * sizeof(float) + kPartBlocks * kBlock * kTile;

// The activations of GPT-2's family: GELU in its tanh form (the original's), GELU as defined, max(x, 0), x ·
// sigmoid(x).
enum class Activation { gelu_new, gelu, relu, silu };

enum class Epilogue { store, gelu, add };  // c = y | c = gelu(y) | c = c + y

// The sums of a product that is computed over several parts of k, one call for each, [tile][row][kTile].
struct PartialSums {
  float* data = nullptr;            // null if one call takes all of k
  std::size_t step = 0;             // numbers from one tile's sums to the next one's
  bool begins = true, ends = true;  // whether a call takes the first part, or the last one
};

// y[m, n] = a[m, k] · b[k, n] + bias[n], then the epilogue into c.
struct Product {
  Precision precision;
  const float* a;  // [m, k], rows lda apart; used if prepared_bytes() is 0
  std::size_t lda;
  const std::byte* prepared;  // what prepare() made from the rows, prepared_bytes() for each group of them
  const std::byte* b;         // packed tiles
  std::size_t b_step;  // bytes from a tile to the next one; float32 products, and bfloat16 without tiles, compute it
  const float* bias;   // [n] padded to whole tiles, or null for none
  float* c;            // [m, n], rows ldc apart
  std::size_t ldc;
  std::byte* blocks;  // instead of c, if finishes_blocks(): the outputs as prepare() would write them; or null
  float* partial;  // float products: [m, tiles * kTile] for sums between parts of k of one call, or null for one part
  std::byte* scratch;  // other products: this thread's own kScratchBytes, 64-byte aligned
  int m, k, n;
  Epilogue epilogue;
  Meter* meter;           // of this thread, or null
  PartialSums sums = {};  // if takes_parts()

  // Returns the part before it.
  Part enter(Part part) const { return meter ? meter->enter(part) : part; }
};

// A matrix in panels of max_rows rows. Number i of row r of a panel lies at [r · row + i · step], and the next panel
// begins `panel` numbers later. `row` or `step` is 1. The kernels read the whole last panel.
struct RowPanels {
  const float* data;
  std::size_t row, step, panel;
};

// c[m, n] = a · b + bias, or c += a · b; b lies in panels from pack_columns(), panel_columns wide.
struct MatmulPart {
  RowPanels a;
  const float* b;
  float* c;
  std::size_t ldc;
  const float* bias;  // null for none; unused if add
  bool add;
  int m, n, k;
  int b_depth;  // depth of b's panels, k or more
};

// Attention of `m` rows (consecutive positions) of one sequence for one head, over keys and values of floats.
struct Attention {
  const float* q;  // [m, head_dim], rows ldq apart
  std::size_t ldq;
  KVPrecision format;         // of keys and values; not int8
  const void* const* keys;    // per block: [head_dim][kTile], positions innermost
  const void* const* values;  // per block: [kTile][value_stride]
  int value_stride;           // head_dim rounded up to kTile; the padding is zero
  float* out;                 // [m, head_dim], rows ldo apart
  std::size_t ldo;
  float* scores;  // scratch [m, kSpan]
  float* sums;    // scratch [m, value_stride]
  int m, head_dim;
  bool fused;          // whether multiply-adds are rounded once
  int first_position;  // position of row 0; row r sees positions 0 … first_position + r
  float scale;         // of the scores, times log2 e: probabilities are powers of two
};

// One row of one of several sequences.
struct SequenceRow {
  const float* q;                  // [head_dim]
  const std::byte* const* blocks;  // its sequence's blocks of the KV cache
  const std::byte* const* ahead;   // as many blocks that are read next, to be prefetched
  int position;                    // the row sees positions 0 … position
  float* out;                      // [head_dim]
};

// Attention of one row of each of `m` sequences for one head, over keys and values of floats. The first `shared` blocks
// of all are the same memory, which is read once for all rows; every row sees all of it, and at least one block more.
struct SequenceAttention {
  const SequenceRow* rows;
  std::size_t offset;        // of the head in a block: its keys, then its values, as in Attention
  std::size_t ahead_offset;  // where in a block of `ahead` to prefetch
  KVPrecision format;        // as in Attention
  bool fused;                // as in Attention
  int m, shared, head_dim, value_stride;
  float scale;     // as in Attention
  float* queries;  // scratch [m, head_dim]
  float* scores;   // scratch [m, kSpan]
  float* sums;     // scratch [m, value_stride]
};

// Attention of `m` rows for one head, over keys and values that lie as packed_block.h says: of up to kRowGroup
// sequences, or of one. The first `shared` blocks of all are the same memory, though not every row needs to see them.
struct PackedAttention {
  const SequenceRow* rows;
  std::size_t offset, ahead_offset;  // as in SequenceAttention
  KVPrecision format;                // of keys and values
  int m, shared, head_dim;
  float scale;         // as in Attention
  std::byte* scratch;  // packed_attention_bytes(format, head_dim), 64-byte aligned
};

// The sampler divides a row of n scores into groups of kGroup; bin j of a group holds its scores j, j + kGroupBins, ….
constexpr int kGroup = 2048;
constexpr int kGroupBins = 32;
constexpr int kStride = 512;  // scores whose probabilities are summed together

// Passes over a row of n scores, float32 or float64; NaN compares as less than every number.
template <typename Real>
struct ScoreKernels {
  Real (*largest)(const Real* x, int n, Real* bins);  // also writes the largest of every bin, -inf for an empty bin
  // Writes the ids of all scores ≥ threshold, ascending, and returns their number; `ids` has room for n + 16.
  int (*at_least)(const Real* x, int n, const Real* bins, Real threshold, std::int32_t* ids);
  // Computes sums[i], the sum of e^((x - largest) · scale) over stride i in float64 (terms below 3e-308 count as 0),
  // and returns the total.
  double (*sum_strides)(const Real* x, int n, double largest, double scale, double* sums);
};

struct RowSum {
  float offset, sum;  // softmax_row()'s offset, and the sum of the values that it writes
};

struct Kernels {
  const char* name;
  int max_rows;       // rows of attention, or of a panel, that are computed together
  int panel_columns;  // columns of a panel
  bool emulates_fma;  // whether fused multiply-adds are emulated: float32 and bfloat16 are then many times slower
  void (*product)(const Product&, int first_tile, int last_tile);
  void (*matmul_part)(const MatmulPart&);
  // Pack `count` lines of k numbers side by side into panels of max_rows or panel_columns lines; zeros fill the last
  // panel. Lines are `line` numbers apart, and the numbers of a line `step` apart.
  void (*pack_rows)(const float* x, std::size_t line, std::size_t step, int count, int k, float* out);
  void (*pack_columns)(const float* x, std::size_t line, std::size_t step, int count, int k, float* out);
  void (*activate)(Activation, float* x, int n);                             // in place
  void (*gelu_gradient)(const float* x, const float* d, int n, float* out);  // out = d · gelu'(x); may be x or d
  // Turn a row of attention scores s into e^(scale · s - offset) up to `length`, and into zeros from there to `padded`,
  // a multiple of kTile. softmax_row() uses the largest scale · s as the offset.
  RowSum (*softmax_row)(float* s, int length, int padded, float scale);
  void (*softmax_again)(float* s, int length, int padded, float scale, float offset);
  // Turns d, the gradient of the probabilities p, into the gradient of the scores:
  // p · (d - mean of d weighted by p) · scale.
  void (*softmax_gradient)(float* d, const float* p, int padded, float scale);
  // Returns the bytes that prepare() makes of a group of rows of k inputs; 0 if products read the rows directly.
  std::size_t (*prepared_bytes)(Precision, int k);
  // Whether products can write their outputs as inputs of the next product.
  bool (*finishes_blocks)(Precision);
  // Whether products of many rows can, and should, take k in parts; see PartialSums.
  bool (*takes_parts)(Precision);
  // Writes the inputs x[k] as row `row` of its group; padding is zero.
  void (*prepare)(const float* x, int k, Precision precision, int row, std::byte* group);
  void (*attention)(const Attention&);
  void (*sequence_attention)(const SequenceAttention&);
  void (*to_halves)(const float* x, int n, Half* out);        // saturates at the largest finite float16
  void (*to_bfloat16)(const float* x, int n, BFloat16* out);  // numbers above the largest become infinite
  // Packs a key, if `together` is 2, or a value, if it is 1, of n numbers as bfloat16; returns whether all of them are
  // finite. A key's pairs lie `distance` bytes apart, a value's numbers 4 bytes. Subnormal numbers become zero, as
  // a matrix unit treats them anyway.
  bool (*pack_bfloat16)(const float* x, int n, int together, std::size_t distance, BFloat16* out);
  // Returns the bytes of scratch memory for packed_attention(); 0 if this format's keys and values lie as in Attention.
  std::size_t (*packed_attention_bytes)(KVPrecision, int head_dim);
  void (*packed_attention)(const PackedAttention&);
  // Rounds x to whole numbers, the largest to ±127, and returns their scale. It alone reports numbers that are not
  // finite. Number i goes to out[i / together · distance + i % together]; `together` is 1 or 4.
  float (*to_int8)(const float* x, int n, int together, std::size_t distance, Int8* out);
  // Does the same to four rows of n numbers, which begin `row` floats apart. Number i of row r goes to out[4 · i + r],
  // and its scale to scales[r]. Pads each row with zeros to a multiple of kTile numbers.
  void (*four_to_int8)(const float* x, std::size_t row, int n, Int8* out, float* scales);
  void (*layer_norm)(const float* x, const float* gain, const float* bias, float epsilon, int n, float* out);
  // Computes out, the gradient of x, from d, the gradient of layer_norm()'s output; out may be d. Adds to d_gain and
  // d_bias.
  void (*layer_norm_gradient)(const float* x, const float* d, const float* gain, float epsilon, int n, float* out,
                              float* d_gain, float* d_bias);
  double (*exp)(const double* x, int n, double* out);       // out = e^x for x ≤ 0; returns their sum
  double (*sum_exp)(const float* x, int n, float largest);  // sum of e^(x - largest), each term in float32
  ScoreKernels<float> logits;
  ScoreKernels<double> scores;
};

const Kernels& baseline_kernels();  // NEON on Arm, SSE2 on x86-64, the compiler's default elsewhere
#ifdef GPT2LAB_X86_KERNELS
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512vnni_kernels();
#endif
#ifdef GPT2LAB_AVXVNNI_KERNELS
const Kernels& avxvnni_kernels();
#endif
#ifdef GPT2LAB_AMX_KERNELS
const Kernels& amx_kernels();
#endif
#ifdef GPT2LAB_DOTPROD_KERNELS
const Kernels& dotprod_kernels();
#endif

}  // namespace gpt2lab
