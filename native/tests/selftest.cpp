// Checks the core without Python: every set of kernels that this CPU runs against plain loops in float64, and the
// transformer's promise that a row depends on its sequence alone. Built with the sanitizers, and for other CPUs under
// an emulator, by tests/engines/test_selftest.py. Prints a line per set of kernels; exits with 1 at the first failure.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "../instruction_set.h"
#include "../sampler.h"
#include "../transformer.h"

using namespace gpt2lab;

namespace {

std::mt19937 generator(1);

std::vector<float> random_floats(std::size_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator);
  return values;
}

FloatArray random_array(std::size_t n, float scale) {
  FloatArray array((n + kTile - 1) / kTile * kTile);
  const auto values = random_floats(n);
  for (std::size_t i = 0; i < n; ++i) array.data()[i] = scale * values[i];
  return array;
}

void expect(bool holds, const char* what, const char* kernels) {
  if (holds) return;
  std::printf("FAILED: %s (%s)\n", what, kernels);
  std::exit(1);
}

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

void check_product(const Kernels& kernels, ThreadPool& pool, int m, int k, int n, Epilogue epilogue) {
  const auto a = random_floats(std::size_t(m) * k), b = random_floats(std::size_t(k) * n);
  const FloatArray bias = random_array(n, 1);
  const PackedMatrix packed = pack(b.data(), k, n, Layout::input_major, pool);
  const auto before = random_floats(std::size_t(m) * n);
  auto c = before;
  std::vector<float> partial(std::size_t(m) * packed.tile_count() * kTile);
  kernels.product({a.data(), std::size_t(k), packed.tiles.data(), bias.data(), c.data(), std::size_t(n), partial.data(),
                   m, k, n, epilogue},
                  0, packed.tile_count());
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double y = bias.data()[j];
      for (int x = 0; x < k; ++x) y += double(a[i * k + x]) * b[x * n + j];
      if (epilogue == Epilogue::gelu) y = 0.5 * y * (1 + std::tanh(0.7978845608028654 * (y + 0.044715 * y * y * y)));
      if (epilogue == Epilogue::add) y += before[i * n + j];
      expect(near(c[i * n + j], y, 1e-4), "product", kernels.name);
    }
}

void check_layer_norm(const Kernels& kernels, int n) {
  const auto x = random_floats(n), gain = random_floats(n), bias = random_floats(n);
  std::vector<float> out(n);
  kernels.layer_norm(x.data(), gain.data(), bias.data(), 1e-5f, n, out.data());
  double mean = 0, variance = 0;
  for (const float v : x) mean += v / double(n);
  for (const float v : x) variance += (v - mean) * (v - mean) / n;
  for (int i = 0; i < n; ++i)
    expect(near(out[i], (x[i] - mean) / std::sqrt(variance + 1e-5) * gain[i] + bias[i], 1e-5), "layer norm",
           kernels.name);
}

void check_exp(const Kernels& kernels) {
  std::vector<double> x, out;
  for (double v = 0; v > -745; v -= 0.37) x.push_back(v);
  x.push_back(-INFINITY);
  out.resize(x.size());
  kernels.exp(x.data(), int(x.size()), out.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = x[i] < -708 ? 0 : std::exp(x[i]);
    expect(std::abs(out[i] - exact) <= 4e-16 * exact, "exp", kernels.name);
  }
}

Linear random_linear(int k, int n, ThreadPool& pool) {
  const auto w = random_floats(std::size_t(k) * n);
  return {pack(w.data(), k, n, Layout::input_major, pool), random_array(n, 0.1f)};
}

Norm random_norm(int n) { return {random_array(n, 1), random_array(n, 0.1f)}; }

void fill(Transformer& model, const Shape& shape, ThreadPool& pool) {
  const int n = shape.n_embd;
  const auto wte = random_floats(std::size_t(shape.n_vocab) * n);
  model.weights.wte = pack(wte.data(), n, shape.n_vocab, Layout::output_major, pool);
  model.weights.wpe = random_array(std::size_t(shape.n_ctx) * n, 1);
  for (int i = 0; i < shape.n_layer; ++i) {
    Layer layer;
    layer.ln_1 = random_norm(n);
    layer.ln_2 = random_norm(n);
    layer.attn_qkv = random_linear(n, 3 * n, pool);
    layer.attn_proj = random_linear(n, n, pool);
    layer.mlp_fc = random_linear(n, 4 * n, pool);
    layer.mlp_proj = random_linear(4 * n, n, pool);
    model.weights.layers.push_back(std::move(layer));
  }
  model.weights.ln_f = random_norm(n);
}

void check_transformer(const Kernels& kernels, const Shape& shape) {
  ThreadPool pool(2);
  Transformer model(shape, kernels, pool);
  fill(model, shape, pool);
  std::vector<std::int32_t> tokens(shape.n_ctx);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = int(i * 7 % shape.n_vocab);

  std::vector<float> whole(tokens.size() * shape.n_vocab), row(shape.n_vocab);
  const int first = model.cache().create();
  model.forward({{first, tokens.data(), shape.n_ctx, shape.n_ctx}}, whole.data());
  const int second = model.cache().create();
  for (int i = 0; i < shape.n_ctx; ++i) {
    model.forward({{second, &tokens[i], 1, 1}}, row.data());
    const float* expected = whole.data() + std::size_t(i) * shape.n_vocab;
    expect(std::memcmp(row.data(), expected, row.size() * sizeof(float)) == 0, "rows alone and together", kernels.name);
  }
  model.cache().truncate(second, shape.n_ctx / 2);
  const int fork = model.cache().fork(second);
  const std::int32_t next[] = {tokens[shape.n_ctx / 2], 0};
  std::vector<float> two(2 * shape.n_vocab);
  model.forward({{second, &next[0], 1, 1}, {fork, &next[1], 1, 1}}, two.data());
  expect(std::memcmp(two.data(), whole.data() + std::size_t(shape.n_ctx / 2) * shape.n_vocab,
                     row.size() * sizeof(float)) == 0,
         "a fork beside its parent", kernels.name);
  for (const int sequence : {first, second, fork}) model.cache().free(sequence);
  expect(model.cache().blocks_in_use() == 0, "blocks given back", kernels.name);
}

void check_sampler(const Kernels& kernels) {
  Sampler sampler(kernels);
  for (int n : {1, 2, 7, 8, 9, 600, 5000}) {
    const auto logits = random_floats(n);
    for (double top_p : {0.0, 0.3, 0.9, 1.0})
      for (std::int64_t top_k : {0, 1, 5, 100000}) {
        Draw draw;
        draw.params = {0.7, top_k, top_p, 0.01, 1, 0, 0};
        for (std::uint32_t position = 0; position < 20; ++position) {
          draw.position = position;
          const DrawResult result = sampler.draw(logits.data(), n, draw);
          expect(result.status == DrawStatus::ok && result.token >= 0 && result.token < n, "draw", kernels.name);
        }
      }
  }
}

}  // namespace

int main() {
  ThreadPool pool(2);
  for (const Kernels* kernels : available_kernels()) {
    for (int m = 1; m <= 2 * kernels->max_rows + 1; ++m) check_product(*kernels, pool, m, 19, 45, Epilogue::store);
    for (Epilogue epilogue : {Epilogue::store, Epilogue::gelu, Epilogue::add})
      for (int m : {1, 5, 40}) check_product(*kernels, pool, m, 800, 33, epilogue);
    for (int n : {1, 3, 16, 60, 768}) check_layer_norm(*kernels, n);
    check_exp(*kernels);
    check_transformer(*kernels, {50, 70, 60, 5, 2});
    check_transformer(*kernels, {33, 40, 8, 8, 1});
    check_sampler(*kernels);
    std::printf("ok %s\n", kernels->name);
  }
}
