// The transformer's MLPs.
#include <algorithm>

#include "transformer.h"

namespace gpt2lab {
namespace {

constexpr int kPart = 3 * kBlock;  // hidden units that stay in the second-level cache together
constexpr int kLeastRows = 64;     // fewest rows per thread for an MLP in parts

}  // namespace

// Whether the first product of an MLP writes the inputs of the second one.
bool Transformer::finishes_hidden() const {
  return shape_.activation == Activation::gelu_new && kernels_.finishes_blocks(weights.precision());
}

bool Transformer::mlp_in_parts(const Teams& teams) const {
  return teams.size() == 1 && teams.rows() >= kLeastRows * teams.count() && kernels_.takes_parts(weights.precision());
}

void Transformer::reserve_mlp(int rows) {
  const bool parts = kernels_.takes_parts(weights.precision());
  const int n = shape_.n_inner;
  if (finishes_hidden()) hidden_blocks_ = Array<std::byte>(prepared_bytes(std::max(n, kPart), rows));
  else hidden_ = FloatArray(std::size_t(rows) * std::max(n, kBlock));
  if (parts && !finishes_hidden()) hidden_blocks_ = Array<std::byte>(prepared_bytes(kPart, rows));
  if (parts) sums_ = FloatArray(std::size_t(rounded_up(rows, kRowGroup)) * rounded_up(shape_.n_embd, kTile));
}

// Computes a layer's MLP and stores it in `outputs` or adds it to them.
void Transformer::run_mlp(const Layer& layer, const Teams& teams, float* outputs, Epilogue epilogue, int thread) {
  if (mlp_in_parts(teams)) return run_mlp_in_parts(layer, teams, outputs, epilogue, thread);
  const Linear& proj = layer.mlp_proj;
  multiply(proj.weight, proj.bias, hidden(layer, teams, thread), teams, outputs, epilogue, thread);
}

// Computes the first half of a layer's MLP and returns the inputs of the second half.
Transformer::Inputs Transformer::hidden(const Layer& layer, const Teams& teams, int thread) {
  const Linear& fc = layer.mlp_fc;
  const Inputs normed = normalized(layer.ln_2, teams, thread);
  if (finishes_hidden()) {
    std::byte* blocks = hidden_blocks_.data() + prepared_bytes(shape_.n_inner, teams.of_team(thread).begin);
    multiply(fc.weight, fc.bias, normed, teams, nullptr, Epilogue::gelu, thread, blocks);
    team_barrier(teams, thread);
    return {nullptr, blocks};
  }
  // The original's activation is part of the product; the others follow it.
  const bool follows = shape_.activation != Activation::gelu_new;
  multiply(fc.weight, fc.bias, normed, teams, hidden_.data(), follows ? Epilogue::store : Epilogue::gelu, thread);
  if (follows) activate(fc.weight, teams, thread);
  team_barrier(teams, thread);
  return inputs(hidden_.data(), shape_.n_inner, teams, thread);
}

// Applies the activation to this thread's outputs of a product with `w` in hidden_.
void Transformer::activate(const PackedMatrix& w, const Teams& teams, int thread) {
  enter(Part::finishing, thread);
  const Share rows = teams.of_team(thread), tiles = teams.share(w.tile_count(), thread);
  const int begin = tiles.begin * kTile, end = std::min(tiles.end * kTile, w.n);
  for (int r = rows.begin; r < rows.end && begin < end; ++r)
    kernels_.activate(shape_.activation, hidden_.data() + std::size_t(r) * w.n + begin, end - begin);
}

// Computes an MLP for all rows of a thread that is its own team, kPart hidden units at a time: they, and the sums of
// the second product so far, stay in the second-level cache.
void Transformer::run_mlp_in_parts(const Layer& layer, const Teams& teams, float* outputs, Epilogue epilogue,
                                   int thread) {
  const PackedMatrix& proj = layer.mlp_proj.weight;
  const Share rows = teams.of_team(thread);
  const Inputs normed = normalized(layer.ln_2, teams, thread);
  std::byte* blocks = hidden_blocks_.data() + prepared_bytes(kPart, rows.begin);
  Product p = product(proj, layer.mlp_proj.bias, 0, proj.n, epilogue, thread);
  p.prepared = blocks;
  p.c = outputs + std::size_t(rows.begin) * proj.n;
  p.ldc = std::size_t(proj.n);
  p.m = rows.end - rows.begin;
  p.sums.data = sums_.data() + std::size_t(rows.begin) * rounded_up(proj.n, kTile);
  p.sums.step = std::size_t(rounded_up(p.m, kRowGroup)) * kTile;
  for (int first = 0; first < shape_.n_inner; first += kPart) {
    p.k = std::min(kPart, shape_.n_inner - first);
    p.b = proj.tiles + proj.offset_of(first);
    p.sums.begins = first == 0;
    p.sums.ends = first + p.k == shape_.n_inner;
    finish_hidden(layer.mlp_fc, normed, rows, first, p.k, blocks, thread);
    enter(Part::products, thread);
    kernels_.product(p, 0, proj.tile_count());
  }
}

// Computes hidden units first … first + count of some rows as inputs of the MLP's second product.
void Transformer::finish_hidden(const Linear& fc, Inputs normed, Share rows, int first, int count, std::byte* blocks,
                                int thread) {
  const int m = rows.end - rows.begin;
  const auto multiply_some = [&](int at, int width, Epilogue epilogue, float* c, std::byte* finished) {
    Product p = product(fc.weight, fc.bias, at, width, epilogue, thread);
    p.prepared = normed.prepared;
    p.c = c;
    p.ldc = kBlock;
    p.blocks = finished;
    p.m = m;
    enter(Part::products, thread);
    kernels_.product(p, 0, (width + kTile - 1) / kTile);
  };
  if (finishes_hidden()) return multiply_some(first, count, Epilogue::gelu, nullptr, blocks);

  const bool follows = shape_.activation != Activation::gelu_new;
  const Precision precision = weights.precision();
  const std::size_t group = kernels_.prepared_bytes(precision, count), one = kernels_.prepared_bytes(precision, kBlock);
  float* some = hidden_.data() + std::size_t(rows.begin) * kBlock;
  for (int at = first; at < first + count; at += kBlock, blocks += one) {
    const int width = std::min(kBlock, first + count - at);
    multiply_some(at, width, follows ? Epilogue::store : Epilogue::gelu, some, nullptr);
    enter(Part::inputs, thread);
    for (int r = 0; r < m; ++r) {
      float* row = some + std::size_t(r) * kBlock;
      if (follows) kernels_.activate(shape_.activation, row, width);
      kernels_.prepare(row, width, precision, r, blocks + r / kRowGroup * group);
    }
  }
}

}  // namespace gpt2lab
