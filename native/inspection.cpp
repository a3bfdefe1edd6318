// The transformer's functions that look inside: hooks in a pass, and products with single rows of weights.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "transformer.h"

namespace gpt2lab {

// Changes and records a site's numbers: row i of `x` begins at i · stride.
void Transformer::visit(Site site, int layer, const std::vector<Row>& rows, const Teams& teams, float* x,
                        std::size_t stride, int thread) {
  const std::size_t n = shape_.n_embd;
  float* records = recording_ ? recording_->sites[int(site)] : nullptr;
  if (records && layer < recording_->first_layer) records = nullptr;
  if (records) records += (std::size_t(layer - recording_->first_layer) * recording_->rows + recorded_) * n;
  const Share share = teams.of_member(thread);
  for (int r = share.begin; r < share.end; ++r) {
    float* row = x + std::size_t(r) * stride;
    if (const Edits* edits = hooks_.of(rows[r].sequence))
      for (const Edit& edit : *edits)
        if (edit.site == site && edit.layer == layer) edit.apply(rows[r].position, row);
    if (records) std::memcpy(records + std::size_t(r) * n, row, n * sizeof(float));
  }
  team_barrier(teams, thread);
}

// Adds outputs_ to x_, as Epilogue::add would have done, after changing and recording them.
void Transformer::add_outputs(Site site, int layer, const std::vector<Row>& rows, const Teams& teams, int thread) {
  visit(site, layer, rows, teams, outputs_.data(), shape_.n_embd, thread);
  const std::size_t n = shape_.n_embd;
  const Share share = teams.of_member(thread);
  float* x = x_.data();
  const float* outputs = outputs_.data();
  for (std::size_t i = share.begin * n; i < share.end * n; ++i) x[i] += outputs[i];
  team_barrier(teams, thread);
}

void Transformer::unembed(const float* x, int rows, float* logits) {
  const std::size_t n = shape_.n_embd;
  reserve(std::min(rows, kMaxRows));
  for (int first = 0; first < rows; first += kMaxRows) {
    std::vector<Row> pass(std::min(kMaxRows, rows - first));
    for (std::size_t r = 0; r < pass.size(); ++r) pass[r].output = first + std::int64_t(r);
    std::memcpy(x_.data(), x + std::size_t(first) * n, pass.size() * n * sizeof(float));
    pool_.run([&](int thread) { compute_logits(pass, logits, thread); });
  }
}

void Transformer::compare(const float* x, int rows, float* products) {
  const std::size_t n = shape_.n_embd;
  reserve(std::min(rows, kMaxRows));
  for (int first = 0; first < rows; first += kMaxRows) {
    const int count = std::min(kMaxRows, rows - first);
    std::memcpy(mixed_.data(), x + std::size_t(first) * n, count * n * sizeof(float));
    const Teams teams = Teams::one(count, pool_.size());
    pool_.run([&](int thread) {
      const Inputs a = inputs(mixed_.data(), shape_.n_embd, teams, thread);
      multiply(weights.wte(), nullptr, a, teams, products + std::size_t(first) * shape_.n_vocab, Epilogue::store,
               thread);
    });
  }
}

void Transformer::embedding_lengths(float* lengths) {
  pool_.run([&](int thread) {
    float* row = own_[thread].normed.data();
    const Share share(shape_.n_vocab, thread, pool_.size());
    for (int token = share.begin; token < share.end; ++token) {
      weights.wte().column(token, row);
      double sum = 0;
      for (int i = 0; i < shape_.n_embd; ++i) sum += double(row[i]) * double(row[i]);
      lengths[token] = float(std::sqrt(sum));
    }
  });
}

void Transformer::pull_back(int layer, const float* direction, float* out) const {
  const PackedMatrix& w = weights.layer(layer).attn_proj.weight;
  std::vector<float> column(w.k);
  std::vector<double> sums(w.k);
  for (int j = 0; j < w.n; ++j) {
    w.column(j, column.data());
    for (int i = 0; i < w.k; ++i) sums[i] += double(column[i]) * double(direction[j]);
  }
  for (int i = 0; i < w.k; ++i) out[i] = float(sums[i]);
}

}  // namespace gpt2lab
