#include "transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace gpt2lab {
namespace {

constexpr int kPassRows = kMaxRows;  // rows computed together: enough to read each weight rarely
constexpr int kOutputRows = 64;      // rows of the last layer that the head takes at once
constexpr int kAloneRows = 2;        // up to 2 rows, each thread prepares all for itself: cheaper than waiting

}  // namespace

Transformer::Transformer(const Shape& shape, Precision precision, KVPrecision kv_precision, const Kernels& kernels,
                         ThreadPool& pool)
    : weights(shape, precision), shape_(shape), kernels_(kernels), pool_(pool),
      cache_(shape.n_layer, shape.n_head, shape.head_dim(), kv_precision,
             kernels.packed_attention_bytes(kv_precision, shape.head_dim()) > 0),
      prompts_(shape, !is_integer(precision), kernels, cache_, pool.size()),
      decoding_(shape, !is_integer(precision), kernels, cache_, pool.size()) {
  for (int thread = 0; thread < pool.size(); ++thread) {
    Own own;
    own.normed = FloatArray(std::size_t(kAloneRows) * shape.n_embd);
    own.prepared = Array<std::byte>(widest_bytes(kAloneRows));
    if (own.prepared.size() > 0) own.scratch = Array<std::byte>(kScratchBytes);
    own_.push_back(std::move(own));
  }
}

void Transformer::forward(const std::vector<Feed>& feeds, float* logits, const Recording* recording) {
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
  recording_ = recording;
  recorded_ = 0;
  std::size_t extended = 0;
  try {
    for (; extended < feeds.size(); ++extended) cache_.extend(feeds[extended].sequence, feeds[extended].count);
    for (std::size_t i = 0; i < rows.size(); recorded_ = i += kPassRows)
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
  x_ = FloatArray(m * n);
  normed_ = FloatArray(m * n);
  qkv_ = FloatArray(m * 3 * n);
  mixed_ = FloatArray(m * n);
  reserve_mlp(int(m));
  prepared_ = Array<std::byte>(widest_bytes(int(m)));
  if (prepared_.size() == 0) partial_ = FloatArray(m * widest_outputs());
  capacity_ = int(m);
}

void Transformer::start_meters() { meters_.assign(pool_.size(), {}); }

std::vector<Meter> Transformer::stop_meters() { return std::exchange(meters_, {}); }

void Transformer::wait(int thread) {
  enter(Part::waiting, thread);
  pool_.barrier();
  enter(Part::other, thread);
}

// Returns the bytes of what is prepared from `rows` rows of the widest inputs.
std::size_t Transformer::widest_bytes(int rows) const {
  return prepared_bytes(finishes_hidden() ? shape_.n_embd : std::max(shape_.n_embd, shape_.n_inner), rows);
}

// Returns the width of the widest product with a bias, rounded up to whole tiles. Teams may be at different products at
// once, so where a team's part of partial_ begins must not depend on the product.
std::size_t Transformer::widest_outputs() const {
  return std::size_t(rounded_up(std::max(3 * shape_.n_embd, shape_.n_inner), kTile));
}

// Returns the bytes needed for what is prepared from `rows` rows of k inputs.
std::size_t Transformer::prepared_bytes(int k, int rows) const {
  return (rows + kRowGroup - 1) / kRowGroup * kernels_.prepared_bytes(weights.precision(), k);
}

void Transformer::embed(const Row& row, float* x) const {
  const float* position = weights.wpe() + std::size_t(row.position) * shape_.n_embd;
  weights.wte().column(row.token, x);
  for (int i = 0; i < shape_.n_embd; ++i) x[i] += position[i];
}

// Writes row `row` of a matrix of k inputs to its place in the blocks.
void Transformer::prepare(const float* x, int k, int row, std::byte* blocks) const {
  const std::size_t group = kernels_.prepared_bytes(weights.precision(), k);
  kernels_.prepare(x, k, weights.precision(), row, blocks + row / kRowGroup * group);
}

// Writes the layer norm of one row to row `row` of `rows`, or of the blocks if products need blocks.
void Transformer::normalize(const Norm& norm, const float* x, int row, float* rows, std::byte* blocks, int thread) {
  const int n = shape_.n_embd;
  const bool prepares = kernels_.prepared_bytes(weights.precision(), n) > 0;
  float* normed = prepares ? own_[thread].normed.data() : rows + std::size_t(row) * n;
  kernels_.layer_norm(x, norm.gain, norm.bias, shape_.epsilon, n, normed);
  if (prepares) prepare(normed, n, row, blocks);
}

// A barrier for teams of several threads, none for teams of one. It waits for all threads of the pool, so every thread
// must call it.
void Transformer::team_barrier(const Teams& teams, int thread) {
  if (teams.size() > 1) wait(thread);
}

// Computes the layer norm of the rows of x_ that a thread's team has.
Transformer::Inputs Transformer::normalized(const Norm& norm, const Teams& teams, int thread) {
  const bool alone = teams.rows() <= kAloneRows;
  const std::size_t n = shape_.n_embd;
  const Share team = teams.of_team(thread), share = alone ? team : teams.of_member(thread);
  Own& own = own_[thread];
  float* out = alone ? own.normed.data() : normed_.data() + team.begin * n;
  std::byte* blocks = alone ? own.prepared.data() : prepared_.data() + widest_bytes(team.begin);
  enter(Part::norms, thread);
  for (int r = share.begin; r < share.end; ++r) normalize(norm, x_.data() + r * n, r - team.begin, out, blocks, thread);
  if (!alone) team_barrier(teams, thread);
  return {out, blocks};
}

// Returns the rows of `a` that a thread's team has, prepared for a product with a matrix of k inputs.
Transformer::Inputs Transformer::inputs(const float* a, int k, const Teams& teams, int thread) {
  const bool alone = teams.rows() <= kAloneRows;
  const Share team = teams.of_team(thread), share = alone ? team : teams.of_member(thread);
  a += std::size_t(team.begin) * k;
  if (kernels_.prepared_bytes(weights.precision(), k) == 0) return {a, nullptr};
  std::byte* blocks = alone ? own_[thread].prepared.data() : prepared_.data() + widest_bytes(team.begin);
  enter(Part::inputs, thread);
  for (int r = share.begin - team.begin; r < share.end - team.begin; ++r) prepare(a + std::size_t(r) * k, k, r, blocks);
  if (!alone) team_barrier(teams, thread);
  return {a, blocks};
}

// Returns a product with columns first … first + count of `w`, without its rows.
Product Transformer::product(const PackedMatrix& w, const float* bias, int first, int count, Epilogue epilogue,
                             int thread) {
  Product p{};
  p.precision = w.precision;
  p.b = w.tiles + first / kTile * w.tile_bytes();
  p.b_step = w.tile_bytes();
  p.bias = bias ? bias + first : nullptr;
  p.scratch = own_[thread].scratch.data();
  p.k = w.k;
  p.n = count;
  p.epilogue = epilogue;
  p.meter = meters_.empty() ? nullptr : &meters_[thread];
  return p;
}

// Computes a thread's share of the outputs for the rows of its team; c has all rows.
void Transformer::multiply(const PackedMatrix& w, const float* bias, Inputs a, const Teams& teams, float* c,
                           Epilogue epilogue, int thread, std::byte* blocks) {
  const Share rows = teams.of_team(thread), tiles = teams.share(w.tile_count(), thread);
  Product p = product(w, bias, 0, w.n, epilogue, thread);
  p.a = a.rows;
  p.lda = std::size_t(w.k);
  p.prepared = a.prepared;
  p.c = c ? c + std::size_t(rows.begin) * w.n : nullptr;
  p.ldc = std::size_t(w.n);
  p.blocks = blocks;
  if (bias && a.prepared == nullptr)  // the head, which has no bias, is too wide for partial_
    p.partial = partial_.data() + rows.begin * widest_outputs();
  p.m = rows.end - rows.begin;
  enter(bias ? Part::products : Part::head, thread);
  kernels_.product(p, tiles.begin, tiles.end);
}

void Transformer::run_layer(int index, const std::vector<Row>& rows, const Teams& teams, bool decoding, int thread) {
  const Layer& layer = weights.layer(index);
  const int n = shape_.n_embd;

  const auto multiply_with = [&](const Linear& linear, Inputs a, float* c, Epilogue epilogue) {
    multiply(linear.weight, linear.bias, a, teams, c, epilogue, thread);
  };
  if (hooked_) visit(Site::resid_pre, index, rows, teams, x_.data(), n, thread);
  multiply_with(layer.attn_qkv, normalized(layer.ln_1, teams, thread), qkv_.data(), Epilogue::store);
  if (hooked_) {
    team_barrier(teams, thread);
    visit(Site::q, index, rows, teams, qkv_.data(), 3 * n, thread);
  }
  if (decoding) {
    wait(thread);
    enter(Part::attention, thread);
    decoding_.run(index, qkv_.data(), mixed_.data(), thread);
  } else {
    team_barrier(teams, thread);
    enter(Part::cache, thread);
    prompts_.store(index, qkv_.data(), teams.of_member(thread));
    wait(thread);
    enter(Part::attention, thread);
    prompts_.run(index, qkv_.data(), mixed_.data(), thread);
  }
  wait(thread);
  if (hooked_) visit(Site::z, index, rows, teams, mixed_.data(), n, thread);

  float* outputs = hooked_ ? outputs_.data() : x_.data();
  const Epilogue store_or_add = hooked_ ? Epilogue::store : Epilogue::add;
  multiply_with(layer.attn_proj, inputs(mixed_.data(), n, teams, thread), outputs, store_or_add);
  team_barrier(teams, thread);
  if (hooked_) {
    add_outputs(Site::attn_out, index, rows, teams, thread);
    visit(Site::resid_mid, index, rows, teams, x_.data(), n, thread);
  }
  run_mlp(layer, teams, outputs, store_or_add, thread);
  team_barrier(teams, thread);
  if (hooked_) add_outputs(Site::mlp_out, index, rows, teams, thread);
}

// Computes the final layer norm and the product with the output matrix for the rows that need logits, kOutputRows at a
// time.
void Transformer::compute_logits(const std::vector<Row>& rows, float* logits, int thread) {
  std::size_t next = 0;
  while (true) {
    int count = 0;
    std::int64_t first = -1;
    for (; next < rows.size() && count < kOutputRows; ++next) {
      if (rows[next].output < 0) continue;
      if (first < 0) first = rows[next].output;
      if (rows[next].output != first + count) break;  // another pass computes the rows between
      if (count++ % pool_.size() == thread)
        normalize(weights.ln_f(), x_.data() + next * shape_.n_embd, count - 1, normed_.data(), prepared_.data(),
                  thread);
    }
    if (count == 0) return;
    wait(thread);
    multiply(weights.head(), nullptr, {normed_.data(), prepared_.data()}, Teams::one(count, pool_.size()),
             logits + first * shape_.n_vocab, Epilogue::store, thread);
    wait(thread);
  }
}

void Transformer::run_pass(const std::vector<Row>& rows, float* logits) {
  std::vector<CacheRow> places;
  bool decoding = true;  // one row per sequence: no row waits for another row's keys and values
  for (const Row& row : rows) {
    decoding = decoding && (places.empty() || row.sequence != places.back().sequence);
    places.push_back({row.sequence, row.position});
  }
  const bool any_output = std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.output >= 0; });
  hooked_ = recording_ || (!hooks_.empty() &&
                           std::any_of(rows.begin(), rows.end(), [&](const Row& r) { return hooks_.of(r.sequence); }));
  if (const std::size_t size = rows.size() * shape_.n_embd; hooked_ && outputs_.size() < size)
    outputs_ = FloatArray(size);

  if (decoding) decoding_.plan(places);
  else prompts_.plan(places);
  const Teams teams(int(rows.size()), pool_.size());
  pool_.run([&](int thread) {
    const Share share = teams.of_member(thread);
    for (int i = share.begin; i < share.end; ++i) embed(rows[i], x_.data() + std::size_t(i) * shape_.n_embd);
    team_barrier(teams, thread);
    for (int layer = 0; layer < shape_.n_layer; ++layer) run_layer(layer, rows, teams, decoding, thread);
    if (hooked_) visit(Site::resid_pre, shape_.n_layer, rows, teams, x_.data(), shape_.n_embd, thread);
    if (!any_output) return;
    if (teams.count() > 1) wait(thread);
    compute_logits(rows, logits, thread);
  });
}

}  // namespace gpt2lab
