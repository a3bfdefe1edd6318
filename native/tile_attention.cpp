#include "tile_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace gpt2lab {
namespace {

constexpr int kRows = 64;   // rows of scores computed together
constexpr int kApart = 16;  // extra floats between rows of scores: rows a page apart would share one set of a cache

std::size_t tiles_of(int k) { return std::size_t(kTileLines) * rounded_up(k, kTileDepth); }

}  // namespace

// One head of one sequence.
struct TileAttention::Head {
  int time, dim;
  int padded_time, padded_dim;  // rounded up to whole tiles
  std::size_t lds;              // distance between rows of scores
  std::size_t ld, ldo;          // distance between positions of q, k, v and of out
  float scale;
  std::size_t position, column, sums;  // where it begins in [batch * time], in out's rows and in log_sums

  // Return where queries (0), keys (1) or values (2) begin, and where out does.
  std::size_t at(int which) const { return position * ld + which * ldo + column; }
  std::size_t out_at() const { return position * ldo + column; }
};

// A thread's memory.
struct TileAttention::Buffers {
  BFloat16 *keys, *values, *keys_down;  // operands made of the whole sequence
  BFloat16 *rows, *columns, *weights;   // operands made of a block of rows; weights: of its scores
  float *scores, *d_scores, *sums, *d_keys, *d_values;
  float row_sums[kRows];

  // Divides memory for a head and returns the floats that it takes; with null, only counts.
  std::size_t divide(const Head& h, float* memory) {
    std::size_t taken = 0;
    const auto take = [&](std::size_t floats) {
      float* here = memory ? memory + taken : nullptr;
      taken += (floats + 15) / 16 * 16;
      return here;
    };
    const auto operand = [&](std::size_t numbers) { return reinterpret_cast<BFloat16*>(take(numbers / 2)); };
    const std::size_t whole = std::size_t(h.padded_time) * h.padded_dim, block = std::size_t(kRows) * h.padded_dim;
    keys = operand(whole), values = operand(whole), keys_down = operand(whole);
    rows = operand(block), columns = operand(block), weights = operand(std::size_t(kRows) * h.padded_time);
    scores = take(kRows * h.lds), d_scores = take(kRows * h.lds), sums = take(block);
    d_keys = take(whole), d_values = take(whole);
    return taken;
  }
};

template <typename F>
void TileAttention::for_each_head(const AttentionShape& shape, F&& work) {
  Head head{};
  head.time = shape.time, head.dim = shape.head_dim;
  head.padded_time = rounded_up(shape.time, kRows), head.padded_dim = rounded_up(shape.head_dim, kTileDepth);
  head.lds = head.padded_time + kApart;
  head.ld = 3 * shape.width(), head.ldo = shape.width(), head.scale = shape.scale;
  const std::size_t floats = Buffers().divide(head, nullptr);
  if (memory_.size() < floats * pool_.size()) memory_ = FloatArray(floats * pool_.size());
  std::atomic<int> next{0};
  const int heads = shape.batch * shape.n_head;
  pool_.run([&](int thread) {
    Buffers buffers;
    buffers.divide(head, memory_.data() + thread * floats);
    for (int number; (number = next.fetch_add(1, std::memory_order_relaxed)) < heads;) {
      Head mine = head;
      mine.position = std::size_t(number / shape.n_head) * shape.time;
      mine.column = std::size_t(number % shape.n_head) * shape.head_dim;
      mine.sums = std::size_t(number) * shape.time;
      work(mine, buffers);
    }
  });
}

void TileAttention::store(const float* x, int rows, int dim, BFloat16* out, std::size_t row) const {
  for (int r = 0; r < rows; ++r) tiles_.round(x + std::size_t(r) * dim, dim, 1, out + r * row);
}

void TileAttention::forward(const AttentionShape& shape, const BFloat16* qkv, BFloat16* out, float* log_sums) {
  for_each_head(shape, [&](const Head& head, Buffers& buffers) { forward(head, qkv, out, log_sums, buffers); });
}

void TileAttention::forward(const Head& h, const BFloat16* qkv, BFloat16* out, float* log_sums,
                            const Buffers& b) const {
  const std::size_t deep = tiles_of(h.dim), along = tiles_of(h.padded_time);
  tiles_.pack_columns({qkv + h.at(1), false, h.ld, 1}, h.time, h.dim, false, b.keys, deep);
  tiles_.pack_columns({qkv + h.at(2), false, 1, h.ld}, h.dim, h.time, false, b.values, along);
  for (int row = 0; row < h.time; row += kRows) {
    const int m = std::min(kRows, h.time - row), seen = row + m, padded = rounded_up(seen, kTile);
    tiles_.pack_rows({qkv + h.at(0) + row * h.ld, false, h.ld, 1}, m, h.dim, false, b.rows, deep);
    tiles_.multiply({b.rows, b.keys, deep, deep, m, seen, h.dim, nullptr, 0, nullptr, {b.scores, true, h.lds}});
    float row_sums[kRows];
    for (int r = 0; r < m; ++r) {
      const RowSum sum = kernels_.softmax_row(b.scores + r * h.lds, row + r + 1, padded, h.scale);
      log_sums[h.sums + row + r] = sum.offset + std::log(sum.sum);
      row_sums[r] = 1 / sum.sum;
    }
    tiles_.pack_rows({b.scores, true, h.lds, 1}, m, padded, false, b.weights, along);
    const std::size_t width = h.padded_dim;
    tiles_.multiply({b.weights, b.values, along, along, m, h.dim, seen, nullptr, 0, nullptr, {b.sums, true, width}});
    for (int r = 0; r < m; ++r)
      tiles_.round(b.sums + r * width, h.dim, row_sums[r], out + h.out_at() + (row + r) * h.ldo);
  }
}

void TileAttention::backward(const AttentionShape& shape, const BFloat16* qkv, const float* log_sums,
                             const BFloat16* d_out, BFloat16* d_qkv) {
  for_each_head(shape,
                [&](const Head& head, Buffers& buffers) { backward(head, qkv, log_sums, d_out, d_qkv, buffers); });
}

void TileAttention::backward(const Head& h, const BFloat16* qkv, const float* log_sums, const BFloat16* d_out,
                             BFloat16* d_qkv, const Buffers& b) const {
  const std::size_t deep = tiles_of(h.dim), along = tiles_of(h.padded_time), block = tiles_of(kRows), lds = h.lds;
  const std::size_t width = h.dim;
  tiles_.pack_columns({qkv + h.at(1), false, h.ld, 1}, h.time, h.dim, false, b.keys, deep);
  tiles_.pack_columns({qkv + h.at(2), false, h.ld, 1}, h.time, h.dim, false, b.values, deep);
  tiles_.pack_columns({qkv + h.at(1), false, 1, h.ld}, h.dim, h.time, false, b.keys_down, along);
  std::fill_n(b.d_keys, h.time * width, 0.0f);
  std::fill_n(b.d_values, h.time * width, 0.0f);
  for (int row = 0; row < h.time; row += kRows) {
    const int m = std::min(kRows, h.time - row), seen = row + m, padded = rounded_up(seen, kTile);
    const BFloat16 *q = qkv + h.at(0) + row * h.ld, *d_o = d_out + h.out_at() + row * h.ldo;
    tiles_.pack_rows({q, false, h.ld, 1}, m, h.dim, false, b.rows, deep);  // p = softmax(q · k)
    tiles_.multiply({b.rows, b.keys, deep, deep, m, seen, h.dim, nullptr, 0, nullptr, {b.scores, true, lds}});
    for (int r = 0; r < m; ++r)
      kernels_.softmax_again(b.scores + r * lds, row + r + 1, padded, h.scale, log_sums[h.sums + row + r]);
    tiles_.pack_rows({d_o, false, h.ldo, 1}, m, h.dim, false, b.rows, deep);  // d p = d out · v, then d scores
    tiles_.multiply({b.rows, b.values, deep, deep, m, seen, h.dim, nullptr, 0, nullptr, {b.d_scores, true, lds}});
    for (int r = 0; r < m; ++r) {
      std::fill(b.d_scores + r * lds + seen, b.d_scores + r * lds + padded, 0.0f);
      kernels_.softmax_gradient(b.d_scores + r * lds, b.scores + r * lds, padded, h.scale);
    }
    // d v += transposed p · d out; then d k += transposed d scores · q; then d q = d scores · k
    const auto add_transposed = [&](const float* weights, const Lines& vectors, float* sums) {
      tiles_.pack_rows({weights, true, 1, lds}, seen, m, false, b.weights, block);
      tiles_.pack_columns(vectors, h.dim, m, false, b.columns, block);
      tiles_.multiply({b.weights, b.columns, block, block, seen, h.dim, m, sums, width, nullptr, {sums, true, width}});
    };
    add_transposed(b.scores, {d_o, false, 1, h.ldo}, b.d_values);
    add_transposed(b.d_scores, {q, false, 1, h.ld}, b.d_keys);
    tiles_.pack_rows({b.d_scores, true, lds, 1}, m, padded, false, b.weights, along);
    tiles_.multiply({b.weights, b.keys_down, along, along, m, h.dim, seen, nullptr, 0, nullptr, {b.sums, true, width}});
    store(b.sums, m, h.dim, d_qkv + h.at(0) + row * h.ld, h.ld);  // the last use of q: d q may take its place
  }
  store(b.d_keys, h.time, h.dim, d_qkv + h.at(1), h.ld);
  store(b.d_values, h.time, h.dim, d_qkv + h.at(2), h.ld);
}

}  // namespace gpt2lab
