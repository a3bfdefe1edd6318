// Products of int8 and int4 weights on the CPU's matrix unit (AMX); integers.inl includes this file when it is compiled
// for one.
//
// One instruction multiplies 64 inputs of 16 rows by 16 outputs. The sums are the same integers as in the other
// kernels, and the same float operations follow, so the result is the same to the bit.
#pragma once

#include "integers.inl"

namespace gpt2lab {
namespace {

// The number of rows from which the matrix unit is faster than dot products; it needs int4 unpacked.
template <Precision kP>
constexpr int kMatrixUnitRows = kP == Precision::int8 ? 5 : 6;

alignas(64) constexpr float kZeros[kTile] = {};  // in place of a bias

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The sums of a block for one group of rows, by half of the tile.
struct alignas(64) BlockSums {
  std::int32_t high[2][kRowGroup][kHalfTile], low[2][kRowGroup][kHalfTile];
};

// Blocks of a tile of weights that stay in the first-level cache while rows pass, as int8.
struct WeightPart {
  TileBlock blocks[kPartBlocks];
  int first, count;
};

// A block that the unit has multiplied, whose sums are added while it multiplies the next one.
struct DoneBlock {
  const BlockSums* sums;
  const float *weight_scales, *input_scales;
  const float* from;  // what its sums are added to, rows from_row apart
  std::size_t from_row;
  float* y;      // the results, [kRowGroup][kTile]
  int rows = 0;  // of its group
};

// Rows of outputs without their epilogue, which follows while the unit multiplies.
struct DoneOutputs {
  const float* y;
  int row, column;  // of the first one
  int rows = 0;
};

// Adds rows begin … end of a block.
inline void add_rows(const DoneBlock& done, int begin, int end) {
  const Vec scales[2] = {load(done.weight_scales), load(done.weight_scales + kHalfTile)};
  for (int r = begin; r < end; ++r)
    for (int half = 0; half < 2; ++half) {
      const IntVec sum = load_ints(done.sums->low[half][r]) + (load_ints(done.sums->high[half][r]) << 7);
      const Vec from = load(done.from + r * done.from_row + half * kHalfTile);
      store(done.y + r * kTile + half * kHalfTile, add_scaled(from, sum, scales[half], done.input_scales[r]));
    }
}

__attribute__((noinline)) void finish_rows(const Product& p, const DoneOutputs& done, int begin, int end) {
  for (int r = begin; r < end; ++r)
    for (int v = 0; v < kTile; v += kWidth) finish(p, done.row + r, done.column + v, load(done.y + r * kTile + v));
}

// Adds the products of 64 inputs, part `part` of a block, to tiles 4 to 7. Tiles 0 and 1 get the inputs' high and low
// bytes, which should leave the weights in the first-level cache; 2 and 3 the halves of a tile of weights.
inline void multiply_step(const ActivationBlock& a, const char* weights, int part) {
  constexpr int kStep = WeightBlock<Precision::int8>::kStep;
  weights += part * kPadding / 4 * kStep;
  _tile_stream_loadd(0, a.high[part], kPadding);
  _tile_loadd(2, weights, kStep);
  _tile_dpbssd(4, 0, 2);
  _tile_loadd(3, weights + kHalfTile * 4, kStep);
  _tile_dpbssd(5, 0, 3);
  _tile_stream_loadd(1, a.low[part], kPadding);
  _tile_dpbssd(6, 1, 2);
  _tile_dpbssd(7, 1, 3);
}

// Multiplies a block; meanwhile adds the one before it, finishes outputs, and prefetches `lines` lines at `next`.
template <bool kWhole>
inline void multiply_block(const Product& p, const ActivationBlock& a, const TileBlock& block, const DoneBlock& before,
                           const DoneOutputs& outputs, const char* next, int lines, BlockSums& sums) {
  constexpr int kParts = kBlock / kPadding;
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  const int parts = block.depth / kPadding, rows = kWhole ? kRowGroup : before.rows;
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
    if (part < parts) multiply_step(a, block.weights, part);
    for (int line = lines * part / kParts; line < lines * (part + 1) / kParts; ++line)
      __builtin_prefetch(next + line * kLine, 0, 2);
    if (kWhole || rows > 0) add_rows(before, rows * part / kParts, rows * (part + 1) / kParts);
    if (outputs.rows > 0) finish_rows(p, outputs, outputs.rows * part / kParts, outputs.rows * (part + 1) / kParts);
  }
  _tile_stored(4, sums.high[0], 64);
  _tile_stored(5, sums.high[1], 64);
  _tile_stored(6, sums.low[0], 64);
  _tile_stored(7, sums.low[1], 64);
}

// Returns the part of a tile from block `first` on. int4 is unpacked into `unpacked`.
template <Precision kP>
WeightPart part_of(const Product& p, const char* tile, int first, char* unpacked) {
  WeightPart part{};
  part.first = first;
  for (; part.count < kPartBlocks && first + part.count < block_count(p.k); ++part.count) {
    const int number = first + part.count;
    TileBlock& block = part.blocks[part.count];
    block = TileBlock::at<kP>(tile + std::size_t(number) * WeightBlock<kP>::kWhole, block_depth(p.k, number));
    if constexpr (kP == Precision::int4) {
      char* to = unpacked + part.count * kBlock * kTile;
      unpack<false>(block, to);
      block.weights = to;
    }
  }
  asm volatile("" ::: "memory");  // loads of tiles do not tell the compiler that they read memory
  return part;
}

// Multiplies rows of inputs that fit into the second-level cache by tiles of weights.
template <Precision kP>
void multiply_tiles(const Product& p, int first_tile, int last_tile) {
  const std::size_t size = p.b_step;
  const int blocks = block_count(p.k), groups = (p.m + kRowGroup - 1) / kRowGroup;
  // Every block prefetches a share of the next tile. If only one group of rows reads int8 weights, it prefetches the
  // weights 2 · kAhead bytes ahead instead.
  const int turns = blocks * groups, lines = int((WeightBlock<kP>::tile_bytes(p.k) / kLine + turns - 1) / turns);
  // Sums are kept between parts, or for two groups in turn: one is finished while the next one is added up.
  const bool keeps = p.sums.data || (blocks > kPartBlocks && groups > 1);
  char* unpacked = reinterpret_cast<char*>(p.scratch) + kMaxRows * kTile * sizeof(float);
  BlockSums sums[2];
  DoneBlock done{};
  DoneOutputs added{}, outputs{};
  int turn = 0;
  for (int t = first_tile; t < last_tile; ++t) {
    const auto* b = reinterpret_cast<const char*>(p.b) + std::size_t(t) * size;
    const char* next = b + (kP == Precision::int8 && groups == 1 ? std::size_t(2 * kAhead) : size);
    float* y = p.sums.data ? p.sums.data + t * p.sums.step : reinterpret_cast<float*>(p.scratch);
    const float* bias = p.bias ? p.bias + t * kTile : kZeros;
    for (int first = 0; first < blocks; first += kPartBlocks) {
      const Part before = p.enter(Part::unpacking);
      const WeightPart part = part_of<kP>(p, b, first, unpacked);
      p.enter(before);
      for (int g = 0; g < groups; ++g) {
        const auto* a = reinterpret_cast<const ActivationBlock*>(p.prepared) + std::size_t(g) * blocks + first;
        const int row = g * kRowGroup, rows = p.m - row < kRowGroup ? p.m - row : kRowGroup;
        float* out = y + (keeps ? g : (t * groups + g) % 2) * kRowGroup * kTile;
        for (int i = 0; i < part.count; ++i, ++turn, next += lines * kLine) {
          BlockSums& now = sums[turn % 2];
          if (done.rows == kRowGroup) multiply_block<true>(p, a[i], part.blocks[i], done, outputs, next, lines, now);
          else multiply_block<false>(p, a[i], part.blocks[i], done, outputs, next, lines, now);
          outputs = added;
          const bool begins = first + i == 0 && p.sums.begins;
          done = {&now, part.blocks[i].scales, a[i].scale, begins ? bias : out, begins ? 0 : std::size_t(kTile), out,
                  rows};
          added = {out, row, t * kTile, first + i == blocks - 1 && p.sums.ends ? rows : 0};
        }
      }
    }
  }
  finish_rows(p, outputs, 0, outputs.rows);
  if (done.rows > 0) add_rows(done, 0, done.rows);
  finish_rows(p, added, 0, added.rows);
}

template <Precision kP>
void matrix_unit_product(const Product& p, int first_tile, int last_tile) {
  static constexpr TileShapes shapes;  // not on the stack: gcc 12 may leave out its stores
  _tile_loadconfig(&shapes);
  with_cached_rows(p, block_count(p.k) * int(sizeof(ActivationBlock)), kCachedInputs,
                   [&](const Product& part) { multiply_tiles<kP>(part, first_tile, last_tile); });
  _tile_release();
}

}  // namespace
}  // namespace gpt2lab
