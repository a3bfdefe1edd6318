// Products of bfloat16 inputs and weights on the CPU's matrix unit (AMX); kernels.inl includes this file when it is
// compiled for one.
//
// The same instructions compute every sum in the order of k, whatever the number of rows.
#pragma once

#include "matrix_integers.inl"

namespace gpt2lab {
namespace {

constexpr int kStreamBlocks = 12;      // blocks of k of a tile that stay in the first-level cache while rows pass
constexpr int kPairBytes = kTile * 4;  // two inputs of all outputs of a tile
constexpr int kBlockBytes = kBFloat16Inputs / 2 * kPairBytes;  // bytes of a block of weights

void round_inputs(const float* x, int k, int row, BFloat16Block* out) {
  for (int begin = 0; begin < k; begin += kBFloat16Inputs, ++out) {
    float padded[kBFloat16Inputs] = {};
    const float* block = x + begin;
    if (begin + kBFloat16Inputs > k) {
      __builtin_memcpy(padded, block, (k - begin) * sizeof(float));
      block = padded;
    }
    const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)load(block + kWidth), (__m512)load(block));
    __builtin_memcpy(out->x[row % kRowGroup], &rounded, sizeof rounded);
  }
}

// Finishes rows of outputs as inputs of the next product: a tile's outputs are a block of them.
__attribute__((noinline)) void finish_blocks(const Product& p, const DoneOutputs& done, int begin, int end) {
  static_assert(kTile == kBFloat16Inputs);
  auto* blocks = reinterpret_cast<BFloat16Block*>(p.blocks) + done.column / kTile;
  for (int r = begin; r < end; ++r) {
    Vec y[2] = {load(done.y + r * kTile), load(done.y + r * kTile + kWidth)};
    if (p.epilogue == Epilogue::gelu) y[0] = gelu(y[0]), y[1] = gelu(y[1]);
    const int row = done.row + r;
    const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)y[1], (__m512)y[0]);
    __builtin_memcpy(blocks[row / kRowGroup * bfloat16_blocks(p.n)].x[row % kRowGroup], &rounded, sizeof rounded);
  }
}

// Finishes rows of outputs, wherever they go.
inline void finish_outputs(const Product& p, const DoneOutputs& done, int begin, int end) {
  p.blocks ? finish_blocks(p, done, begin, end) : finish_rows(p, done, begin, end);
}

// Outputs whose sums are complete, and which are finished (epilogue, rounding, storing) while the unit multiplies. Sums
// are complete only after the last part of k. Finishing them all during that part would keep the unit waiting, so some
// are finished during the first part of the next tile.
class CompleteOutputs {
 public:
  // `pairs` pairs of row groups pass `parts` parts of k. With several parts, the outputs of a tile are finished during
  // all pairs of the last part but the first and all pairs of the next tile's first part: 2 · pairs - 1 pairs. Before
  // the sums of that tile's pair g are stored, (pairs + g) · most_ rows are finished, which include pair g's.
  CompleteOutputs(int pairs, int parts) : most_(parts == 1 ? kRowPair : kRowPair * pairs / (2 * pairs - 1) + 1) {}

  void add(const DoneOutputs& pair) {
    if (left_.rows == 0) left_ = pair;
    else left_.rows += pair.rows;
  }

  // Returns the rows to finish beside the next pair.
  DoneOutputs next() {
    DoneOutputs some = left_;
    if (most_ < some.rows) some.rows = most_;
    left_.y += some.rows * kTile, left_.row += some.rows, left_.rows -= some.rows;
    return some;
  }

  const DoneOutputs& left() const { return left_; }

 private:
  DoneOutputs left_{};
  int most_;
};

// Where the sums of one or two groups of rows begin, and where they go; rows are kTile numbers apart.
struct TileSums {
  const float *first, *second;
  float* out;
};

// Tiles 0 and 1 hold inputs of two groups of rows, which should leave the weights in the first-level cache; 2 and 3 the
// halves of a tile of weights, 4 to 7 the sums.
//
// Adds inputs · weights for one or two groups of rows and `count` blocks of k. Meanwhile finishes outputs, and
// prefetches `lines` lines at `next`.
template <bool kTwo>
inline void multiply_bfloat16(const Product& p, const BFloat16Block* first, const BFloat16Block* second,
                              const char* weights, int count, const TileSums& sums, const DoneOutputs& outputs,
                              const char* next, int lines) {
  constexpr int kSumBytes = kTile * sizeof(float);
  _tile_loadd(4, sums.first, kSumBytes);
  _tile_loadd(5, sums.first + kHalfTile, kSumBytes);
  if (kTwo) {
    _tile_loadd(6, sums.second, kSumBytes);
    _tile_loadd(7, sums.second + kHalfTile, kSumBytes);
  }
  int line = 0, row = 0;
  for (int i = 0; i < count; ++i, weights += kBlockBytes) {
    _tile_stream_loadd(0, first[i].x, 64);
    _tile_loadd(2, weights, kPairBytes);
    _tile_dpbf16ps(4, 0, 2);
    _tile_loadd(3, weights + 64, kPairBytes);
    _tile_dpbf16ps(5, 0, 3);
    if (kTwo) {
      _tile_stream_loadd(1, second[i].x, 64);
      _tile_dpbf16ps(6, 1, 2);
      _tile_dpbf16ps(7, 1, 3);
    }
    for (const int end = lines * (i + 1) / count; line < end; ++line) __builtin_prefetch(next + line * kLine, 0, 2);
    const int end = outputs.rows * (i + 1) / count;
    if (row < end) finish_outputs(p, outputs, row, end);
    row = end;
  }
  _tile_stored(4, sums.out, kSumBytes);
  _tile_stored(5, sums.out + kHalfTile, kSumBytes);
  if (kTwo) {
    _tile_stored(6, sums.out + kRowGroup * kTile, kSumBytes);
    _tile_stored(7, sums.out + kRowGroup * kTile + kHalfTile, kSumBytes);
  }
}

// Multiplies rows of inputs that fit into the second-level cache by tiles of weights.
void multiply_rows_bfloat16(const Product& p, int first_tile, int last_tile) {
  const int blocks = bfloat16_blocks(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup, pairs = (groups + 1) / 2;
  const auto* a = reinterpret_cast<const BFloat16Block*>(p.prepared);
  alignas(64) float bias[kRowGroup][kTile] = {};
  CompleteOutputs complete(pairs, (blocks + kStreamBlocks - 1) / kStreamBlocks);
  for (int t = first_tile; t < last_tile; ++t) {
    const int column = t * kTile;
    for (int r = 0; r < kRowGroup && p.bias; ++r)
      for (int v = 0; v < kTile; v += kWidth) store(bias[r] + v, load(p.bias + column + v));
    asm volatile("" ::: "memory");  // loads of tiles do not tell the compiler that they read memory
    float* sums = p.sums.data ? p.sums.data + t * p.sums.step : reinterpret_cast<float*>(p.scratch);
    const auto* b = reinterpret_cast<const char*>(p.b) + t * p.b_step;
    // Prefetches a little ahead if the tile is read only once, otherwise the next tile.
    const char* next = b + (pairs == 1 ? std::size_t(2 * kAhead) : p.b_step);
    for (int begin = 0; begin < blocks; begin += kStreamBlocks, b += std::size_t(kStreamBlocks) * kBlockBytes) {
      const int count = blocks - begin < kStreamBlocks ? blocks - begin : kStreamBlocks;
      const int lines = (count * kBlockBytes / kLine + pairs - 1) / pairs;
      for (int g = 0; g < groups; g += 2, next += lines * kLine) {
        const int row = g * kRowGroup;
        const BFloat16Block* first = a + std::size_t(g) * blocks + begin;
        float* out = sums + row * kTile;
        const bool begins = begin == 0 && p.sums.begins;
        const TileSums where{begins ? bias[0] : out, begins ? bias[0] : out + kRowGroup * kTile, out};
        const DoneOutputs outputs = complete.next();
        if (g + 1 < groups) multiply_bfloat16<true>(p, first, first + blocks, b, count, where, outputs, next, lines);
        else multiply_bfloat16<false>(p, first, nullptr, b, count, where, outputs, next, lines);
        const int rows = p.m - row < 2 * kRowGroup ? p.m - row : 2 * kRowGroup;
        if (begin + count == blocks && p.sums.ends) complete.add({out, row, column, rows});
      }
    }
  }
  finish_outputs(p, complete.left(), 0, complete.left().rows);
}

void bfloat16_product(const Product& p, int first_tile, int last_tile) {
  static constexpr TileShapes shapes;  // not on the stack: gcc 12 may leave out its stores
  _tile_loadconfig(&shapes);
  with_cached_rows(p, bfloat16_blocks(p.k) * int(sizeof(BFloat16Block)), kCachedInputs,
                   [&](const Product& part) { multiply_rows_bfloat16(part, first_tile, last_tile); });
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
