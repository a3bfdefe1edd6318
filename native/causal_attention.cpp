#include "causal_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace gpt2lab {
namespace {

constexpr int kPanels = 8;  // panels of rows in one block of scores
constexpr int kApart = 16;  // extra floats between rows of scores: rows a page apart would share one set of a cache

}  // namespace

// One head of one sequence.
struct CausalAttention::Head {
  int time, dim;
  int rows;                     // rows of scores computed together
  int padded_time, padded_dim;  // rounded up to whole panels of columns
  std::size_t lds;              // distance between rows of scores
  std::size_t ld, ldo;          // distance between positions of q, k, v and of out
  float scale;
  std::size_t position, column, sums;  // where it begins in [batch * time], in out's rows and in log_sums

  std::size_t scores() const { return rows * lds; }
  std::size_t panels() const { return std::size_t(padded_time) * padded_dim; }  // numbers in the panels of q, k or v
  std::size_t block() const { return std::size_t(rows) * padded_dim; }
  int count(int row) const { return std::min(rows, time - row); }
  // Return where queries (0), keys (1) or values (2) begin, and where out does.
  std::size_t at(int which) const { return position * ld + which * ldo + column; }
  std::size_t out_at() const { return position * ldo + column; }
};

template <typename F>
void CausalAttention::for_each_head(const AttentionShape& shape, F&& work) {
  Head head{};
  head.time = shape.time, head.dim = shape.head_dim, head.rows = kPanels * kernels_.max_rows;
  head.padded_time = rounded_up(shape.time, kTile), head.padded_dim = rounded_up(shape.head_dim, kTile);
  head.lds = head.padded_time + kApart;
  head.ld = 3 * shape.width(), head.ldo = shape.width(), head.scale = shape.scale;
  const std::size_t floats = 3 * (head.panels() + head.block()) + 2 * head.scores() + head.rows + 256;
  if (memory_.size() < floats * pool_.size()) memory_ = FloatArray(floats * pool_.size());
  std::atomic<int> next{0};
  const int heads = shape.batch * shape.n_head;
  pool_.run([&](int thread) {
    for (int number; (number = next.fetch_add(1, std::memory_order_relaxed)) < heads;) {
      Head mine = head;
      mine.position = std::size_t(number / shape.n_head) * shape.time;
      mine.column = std::size_t(number % shape.n_head) * shape.head_dim;
      mine.sums = std::size_t(number) * shape.time;
      work(mine, memory_.data() + thread * floats);
    }
  });
}

namespace {

// A stack that hands out pieces of a thread's memory.
struct Stack {
  float* next;
  float* take(std::size_t floats) {
    float* taken = next;
    next += (floats + 15) / 16 * 16;
    return taken;
  }
};

}  // namespace

void CausalAttention::forward(const AttentionShape& shape, const float* qkv, float* out, float* log_sums) {
  for_each_head(shape, [&](const Head& head, float* memory) { forward(head, qkv, out, log_sums, memory); });
}

void CausalAttention::forward(const Head& h, const float* qkv, float* out, float* log_sums, float* memory) const {
  const float *q = qkv + h.at(0), *k = qkv + h.at(1), *v = qkv + h.at(2);
  const std::size_t panel = kernels_.max_rows, lds = h.lds;
  Stack stack{memory};
  float *keys = stack.take(h.panels()), *values = stack.take(h.panels());
  float *scores = stack.take(h.scores()), *queries = stack.take(h.block()), *sums = stack.take(h.rows);
  const RowPanels block{queries, 1, panel, panel * h.dim};
  kernels_.pack_columns(k, h.ld, 1, h.time, h.dim, keys);
  kernels_.pack_columns(v, 1, h.ld, h.dim, h.time, values);
  for (int row = 0; row < h.time; row += h.rows) {
    const int m = h.count(row), seen = row + m, padded = rounded_up(seen, kTile);
    float* o = out + h.out_at() + row * h.ldo;
    kernels_.pack_rows(q + row * h.ld, h.ld, 1, m, h.dim, queries);
    kernels_.matmul_part({block, keys, scores, lds, nullptr, false, m, padded, h.dim, h.dim});
    for (int r = 0; r < m; ++r) {
      const RowSum row_sum = kernels_.softmax_row(scores + r * lds, row + r + 1, padded, h.scale);
      log_sums[h.sums + row + r] = row_sum.offset + std::log(row_sum.sum);
      sums[r] = row_sum.sum;
    }
    kernels_.matmul_part({{scores, lds, 1, panel * lds}, values, o, h.ldo, nullptr, false, m, h.dim, seen, h.time});
    for (int r = 0; r < m; ++r)
      for (int i = 0; i < h.dim; ++i) o[r * h.ldo + i] /= sums[r];
  }
}

void CausalAttention::backward(const AttentionShape& shape, const float* qkv, const float* log_sums, const float* d_out,
                               float* d_qkv) {
  for_each_head(shape, [&](const Head& head, float* memory) { backward(head, qkv, log_sums, d_out, d_qkv, memory); });
}

void CausalAttention::backward(const Head& h, const float* qkv, const float* log_sums, const float* d_out, float* d_qkv,
                               float* memory) const {
  const float *k = qkv + h.at(1), *v = qkv + h.at(2);
  float *d_k = d_qkv + h.at(1), *d_v = d_qkv + h.at(2);
  const std::size_t panel = kernels_.max_rows, lds = h.lds;
  Stack stack{memory};
  float *keys = stack.take(h.panels()), *values = stack.take(h.panels()), *keys_down = stack.take(h.panels());
  float *p = stack.take(h.scores()), *d = stack.take(h.scores());
  float *rows = stack.take(h.block()), *queries = stack.take(h.block()), *gradients = stack.take(h.block());
  const RowPanels block{rows, 1, panel, panel * h.dim};
  kernels_.pack_columns(k, h.ld, 1, h.time, h.dim, keys);
  kernels_.pack_columns(v, h.ld, 1, h.time, h.dim, values);
  kernels_.pack_columns(k, 1, h.ld, h.dim, h.time, keys_down);
  for (int i = 0; i < h.time; ++i) {
    std::fill_n(d_k + i * h.ld, h.dim, 0.0f);
    std::fill_n(d_v + i * h.ld, h.dim, 0.0f);
  }
  for (int row = 0; row < h.time; row += h.rows) {
    const int m = h.count(row), seen = row + m, padded = rounded_up(seen, kTile);
    const float *q = qkv + h.at(0) + row * h.ld, *d_o = d_out + h.out_at() + row * h.ldo;
    float* d_q = d_qkv + h.at(0) + row * h.ld;
    kernels_.pack_rows(q, h.ld, 1, m, h.dim, rows);  // p = softmax(q · k)
    kernels_.matmul_part({block, keys, p, lds, nullptr, false, m, padded, h.dim, h.dim});
    for (int r = 0; r < m; ++r)
      kernels_.softmax_again(p + r * lds, row + r + 1, padded, h.scale, log_sums[h.sums + row + r]);
    kernels_.pack_rows(d_o, h.ldo, 1, m, h.dim, rows);  // d p = d out · v, then d scores
    kernels_.matmul_part({block, values, d, lds, nullptr, false, m, padded, h.dim, h.dim});
    for (int r = 0; r < m; ++r) kernels_.softmax_gradient(d + r * lds, p + r * lds, padded, h.scale);
    kernels_.pack_columns(q, 1, h.ld, h.dim, m, queries);  // the last read of q: d q may take its place
    // d q = d scores · k; then d k += transposed d scores · q; then d v += transposed p · d out
    kernels_.matmul_part({{d, lds, 1, panel * lds}, keys_down, d_q, h.ld, nullptr, false, m, h.dim, seen, h.time});
    kernels_.matmul_part({{d, 1, lds, panel}, queries, d_k, h.ld, nullptr, true, seen, h.dim, m, m});
    kernels_.pack_columns(d_o, 1, h.ldo, h.dim, m, gradients);
    kernels_.matmul_part({{p, 1, lds, panel}, gradients, d_v, h.ld, nullptr, true, seen, h.dim, m, m});
  }
}

}  // namespace gpt2lab
