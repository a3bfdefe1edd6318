#include "transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gpt2lab {
namespace {

constexpr float kEpsilon = 1e-5f;  // of every layer norm, as in the original model.py
constexpr int kPassRows = 512;     // rows computed together: enough to read each weight rarely
constexpr int kOutputRows = 64;    // rows of the last layer that the head takes at once

// The part of `count` things that belongs to one of `threads`.
struct Share {
  int begin, end;
  Share(int count, int thread, int threads)
      : begin(int(std::int64_t(count) * thread / threads)), end(int(std::int64_t(count) * (thread + 1) / threads)) {}
};

}  // namespace

Transformer::Transformer(const Shape& shape, const Kernels& kernels, ThreadPool& pool)
    : shape_(shape), kernels_(kernels), pool_(pool),
      cache_(shape.n_layer, shape.n_head, shape.head_dim()) {
  const std::size_t padded_ctx = std::size_t(shape.n_ctx + kTile - 1) / kTile * kTile;
  for (int thread = 0; thread < pool.size(); ++thread) {
    thread_normed_.emplace_back(std::size_t(kernels.max_rows) * shape.n_embd);
    thread_scores_.emplace_back(kernels.max_rows * padded_ctx);
    thread_keys_.emplace_back(padded_ctx / kTile);
    thread_values_.emplace_back(padded_ctx / kTile);
  }
}

void Transformer::forward(const std::vector<Feed>& feeds, float* logits) {
  std::vector<Row> rows;
  std::int64_t output = 0;
  for (const Feed& feed : feeds) {
    const int start = cache_.length(feed.sequence);
    for (int i = 0; i < feed.count; ++i) {
      const bool wanted = i >= feed.count - feed.outputs;
      rows.push_back({feed.sequence, start + i, feed.tokens[i], wanted ? output++ : -1});
    }
  }
  reserve(std::min<int>(int(rows.size()), kPassRows));
  std::size_t extended = 0;
  try {
    for (; extended < feeds.size(); ++extended) cache_.extend(feeds[extended].sequence, feeds[extended].count);
    for (std::size_t i = 0; i < rows.size(); i += kPassRows)
      run_pass({rows.begin() + i, rows.begin() + std::min(rows.size(), i + kPassRows)}, logits);
  } catch (...) {
    while (extended-- > 0)
      cache_.truncate(feeds[extended].sequence, cache_.length(feeds[extended].sequence) - feeds[extended].count);
    throw;
  }
}

void Transformer::reserve(int rows) {
  if (rows <= capacity_) return;
  const std::size_t n = shape_.n_embd, m = std::min(kPassRows, std::max(rows, 2 * capacity_));
  const std::size_t widest = std::size_t(4 * shape_.n_embd + kTile);
  x_ = FloatArray(m * n);
  normed_ = FloatArray(m * n);
  qkv_ = FloatArray(m * 3 * n);
  mixed_ = FloatArray(m * n);
  hidden_ = FloatArray(m * 4 * n);
  partial_ = FloatArray(m * widest);
  capacity_ = int(m);
}

void Transformer::embed(const Row& row, float* x) const {
  const float* position = weights.wpe.data() + std::size_t(row.position) * shape_.n_embd;
  for (int i = 0; i < shape_.n_embd; ++i) x[i] = weights.wte.at(i, row.token) + position[i];
}

// Layer norm of the first `rows` rows of x_. A few rows are done by every thread for itself, which is cheaper than
// waiting for one another.
const float* Transformer::normalized(const Norm& norm, int rows, int thread) {
  const std::size_t n = shape_.n_embd;
  const bool each = rows <= 2;
  float* out = each ? thread_normed_[thread].data() : normed_.data();
  const Share share = each ? Share(rows, 0, 1) : Share(rows, thread, pool_.size());
  for (int r = share.begin; r < share.end; ++r)
    kernels_.layer_norm(x_.data() + r * n, norm.gain.data(), norm.bias.data(), kEpsilon, int(n), out + r * n);
  if (!each) pool_.barrier();
  return out;
}

void Transformer::multiply(const Linear& linear, const float* a, int rows, float* c, Epilogue epilogue, int thread) {
  const PackedMatrix& w = linear.weight;
  const Product p{a, std::size_t(w.k), w.tiles.data(), linear.bias.data(), c, std::size_t(w.n),
                  partial_.data(), rows, w.k, w.n, epilogue};
  const Share share(w.tile_count(), thread, pool_.size());
  kernels_.product(p, share.begin, share.end);
}

void Transformer::store_kv(int layer, int head, const Row& row, int index) {
  const int d = shape_.head_dim(), n = shape_.n_embd;
  const int block = row.position / kTile, slot = row.position % kTile;
  const float* k = qkv_.data() + std::size_t(index) * 3 * n + n + head * d;
  float* keys = cache_.keys(row.sequence, layer, head, block) + slot;
  for (int i = 0; i < d; ++i) keys[std::size_t(i) * kTile] = k[i];
  float* values = cache_.values(row.sequence, layer, head, block) + std::size_t(slot) * cache_.value_stride();
  std::memcpy(values, k + n, d * sizeof(float));
}

void Transformer::attend(int layer, int head, const std::vector<Row>& rows, const Span& span, int thread) {
  const int d = shape_.head_dim();
  const Row& first = rows[span.first];
  const int blocks = (first.position + span.count - 1) / kTile + 1;
  auto& keys = thread_keys_[thread];
  auto& values = thread_values_[thread];
  for (int b = 0; b < blocks; ++b) {
    keys[b] = cache_.keys(first.sequence, layer, head, b);
    values[b] = cache_.values(first.sequence, layer, head, b);
  }
  const std::size_t n = shape_.n_embd;
  kernels_.attention({qkv_.data() + span.first * 3 * n + head * d, 3 * n, keys.data(), values.data(),
                      cache_.value_stride(), mixed_.data() + span.first * n + head * d, n,
                      thread_scores_[thread].data(), std::size_t(blocks) * kTile, span.count, d, first.position,
                      1.0f / std::sqrt(float(d))});
}

void Transformer::run_layer(int index, const std::vector<Row>& rows, const std::vector<Span>& spans, bool decoding,
                            int thread) {
  const Layer& layer = weights.layers[index];
  const int m = int(rows.size()), heads = shape_.n_head;

  multiply(layer.attn_qkv, normalized(layer.ln_1, m, thread), m, qkv_.data(), Epilogue::store, thread);
  pool_.barrier();

  // One item is one head of one span; they are dealt out so that all threads get early, short and late, long spans alike.
  if (!decoding) {
    const Share share(m * heads, thread, pool_.size());
    for (int i = share.begin; i < share.end; ++i) store_kv(index, i % heads, rows[i / heads], i / heads);
    pool_.barrier();
  }
  for (int i = thread; i < int(spans.size()) * heads; i += pool_.size()) {
    const Span& span = spans[i / heads];
    if (decoding) store_kv(index, i % heads, rows[span.first], span.first);
    attend(index, i % heads, rows, span, thread);
  }
  pool_.barrier();

  multiply(layer.attn_proj, mixed_.data(), m, x_.data(), Epilogue::add, thread);
  pool_.barrier();
  multiply(layer.mlp_fc, normalized(layer.ln_2, m, thread), m, hidden_.data(), Epilogue::gelu, thread);
  pool_.barrier();
  multiply(layer.mlp_proj, hidden_.data(), m, x_.data(), Epilogue::add, thread);
  pool_.barrier();
}

// Final layer norm and the product with wte, for the rows whose logits are wanted, kOutputRows at a time.
void Transformer::compute_logits(const std::vector<Row>& rows, float* logits, int thread) {
  const std::size_t n = shape_.n_embd;
  const Share tiles(weights.wte.tile_count(), thread, pool_.size());
  std::size_t next = 0;
  while (true) {
    int count = 0;
    std::int64_t first = -1;  // wanted rows have consecutive places in the logits
    for (; next < rows.size() && count < kOutputRows; ++next) {
      if (rows[next].output < 0) continue;
      if (first < 0) first = rows[next].output;
      if (count++ % pool_.size() == thread)
        kernels_.layer_norm(x_.data() + next * n, weights.ln_f.gain.data(), weights.ln_f.bias.data(), kEpsilon, int(n),
                            normed_.data() + (count - 1) * n);
    }
    if (count == 0) return;
    pool_.barrier();
    const Product p{normed_.data(), n, weights.wte.tiles.data(), nullptr, logits + first * shape_.n_vocab,
                    std::size_t(shape_.n_vocab), nullptr, count, shape_.n_embd, shape_.n_vocab,
                    Epilogue::store};
    kernels_.product(p, tiles.begin, tiles.end);
    pool_.barrier();
  }
}

void Transformer::run_pass(const std::vector<Row>& rows, float* logits) {
  std::vector<Span> spans;
  bool decoding = true;  // one row per sequence: nobody waits for another row's keys and values
  for (int i = 0; i < int(rows.size()); ++i) {
    const bool continues = i > 0 && rows[i].sequence == rows[i - 1].sequence;
    decoding = decoding && !continues;
    if (continues && spans.back().count < kernels_.max_rows) ++spans.back().count;
    else spans.push_back({i, 1});
  }
  const bool any_output = std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.output >= 0; });

  pool_.run([&](int thread) {
    const Share share(int(rows.size()), thread, pool_.size());
    for (int i = share.begin; i < share.end; ++i) embed(rows[i], x_.data() + std::size_t(i) * shape_.n_embd);
    pool_.barrier();
    for (int layer = 0; layer < shape_.n_layer; ++layer) run_layer(layer, rows, spans, decoding, thread);
    if (any_output) compute_logits(rows, logits, thread);
  });
}

}  // namespace gpt2lab
