// Checks the core without Python: every set of kernels that this CPU runs against plain loops in float64, and the
// transformer's promise that a row depends on its sequence alone. Built with the sanitizers, and for other CPUs under
// an emulator, by tests/engines/test_selftest.py. Prints a line per set of kernels; exits with 1 at the first failure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../instruction_set.h"
#include "../sampler.h"
#include "../transformer.h"

using namespace gpt2lab;

namespace {

constexpr Precision kPrecisions[] = {Precision::float32, Precision::bfloat16, Precision::q8_0, Precision::q4_0};

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

// What pack() is to make of each value, the plain way.
std::vector<float> stored(const std::vector<float>& b, int k, int n, Precision precision) {
  std::vector<float> out = b;
  for (float& x : out) {
    if (precision != Precision::bfloat16) continue;
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    std::memcpy(&x, &bits, 4);
  }
  for (int first = 0; first < k && is_quantized(precision); first += kBlock)
    for (int j = 0; j < n; ++j) {
      const int end = std::min(k, first + kBlock);
      float largest = 0;
      for (int i = first; i < end; ++i)
        if (std::fabs(b[i * n + j]) > std::fabs(largest)) largest = b[i * n + j];
      const bool q8 = precision == Precision::q8_0;
      const float scale = q8 ? std::fabs(largest) / 127.0f : largest / -8.0f, inverse = 1.0f / scale;
      for (int i = first; i < end; ++i) {
        const float x = b[i * n + j] * inverse;
        out[i * n + j] = to_float(to_half(scale)) * (q8 ? std::round(x) : float(std::min(15, int(x + 8.5f)) - 8));
      }
    }
  return out;
}

// Inputs as quantize() leaves them.
std::vector<float> rounded(const std::vector<float>& a, int m, int k) {
  std::vector<float> out = a;
  for (int r = 0; r < m; ++r)
    for (int first = 0; first < k; first += kBlock) {
      float largest = 0;
      for (int i = first; i < std::min(k, first + kBlock); ++i) largest = std::max(largest, std::fabs(a[r * k + i]));
      for (int i = first; i < std::min(k, first + kBlock); ++i)
        out[r * k + i] = std::nearbyint(a[r * k + i] * (127.0f / largest)) * (largest * (1.0f / 127.0f));
    }
  return out;
}

struct TestMatrix {
  Array<std::byte> memory;
  PackedMatrix packed;
};

TestMatrix packed_matrix(const std::vector<float>& b, int k, int n, Precision precision, ThreadPool& pool) {
  TestMatrix matrix{{}, {precision, nullptr, k, n}};
  matrix.memory = Array<std::byte>(matrix.packed.bytes());
  matrix.packed.tiles = matrix.memory.data();
  expect(pack(b.data(), Layout::input_major, matrix.packed, pool), "finite", "pack");
  return matrix;
}

void check_columns(const PackedMatrix& matrix, const std::vector<float>& expected) {
  std::vector<float> column(matrix.k);
  for (int j = 0; j < matrix.n; ++j) {
    matrix.column(j, column.data());
    for (int i = 0; i < matrix.k; ++i) expect(near(column[i], expected[i * matrix.n + j], 1e-6), "packed values", "pack");
  }
}

void check_product(const Kernels& kernels, ThreadPool& pool, Precision precision, bool prompt, int m, int k, int n,
                   Epilogue epilogue) {
  auto a = random_floats(std::size_t(m) * k);
  const auto source = random_floats(std::size_t(k) * n);
  const TestMatrix matrix = packed_matrix(source, k, n, precision, pool);
  check_columns(matrix.packed, stored(source, k, n, precision));
  const std::size_t block = kernels.prepared_block(precision, prompt), group = block * block_count(k);
  Array<std::byte> prepared((m + kRowGroup - 1) / kRowGroup * group);
  for (int r = 0; r < m && block > 0; ++r)
    kernels.prepare(a.data() + r * k, k, precision, prompt, r, prepared.data() + r / kRowGroup * group);
  auto b = stored(source, k, n, precision);
  if (block == sizeof(BFloat16Block)) {
    a = stored(a, m, k, Precision::bfloat16);
    b = stored(b, k, n, Precision::bfloat16);
  } else if (block > 0) {
    a = rounded(a, m, k);
  }
  const FloatArray bias = random_array(n, 1);
  const auto before = random_floats(std::size_t(m) * n);
  auto c = before;
  std::vector<float> partial(std::size_t(m) * matrix.packed.tile_count() * kTile);
  Array<std::byte> scratch(kScratchBytes);
  kernels.product({precision, prompt, a.data(), std::size_t(k), prepared.data(), matrix.packed.tiles, bias.data(), c.data(),
                   std::size_t(n), partial.data(), scratch.data(), m, k, n, epilogue},
                  0, matrix.packed.tile_count());
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double y = bias.data()[j];
      for (int x = 0; x < k; ++x) y += double(a[i * k + x]) * b[x * n + j];
      if (epilogue == Epilogue::gelu) y = 0.5 * y * (1 + std::tanh(0.7978845608028654 * (y + 0.044715 * y * y * y)));
      if (epilogue == Epilogue::add) y += before[i * n + j];
      expect(near(c[i * n + j], y, 1e-4), "product", kernels.name);
    }
}

void check_halves(const Kernels& kernels) {
  std::vector<Half> all(65536), back(65536);
  std::vector<float> values(65536);
  for (int i = 0; i < 65536; ++i) {
    all[i] = {std::uint16_t(i)};
    values[i] = to_float(all[i]);
  }
  kernels.to_halves(values.data(), int(values.size()), back.data());
  for (int i = 0; i < 65536; ++i) {
    const bool nan = (i & 0x7fff) > 0x7c00, infinite = (i & 0x7fff) == 0x7c00;
    const int expected = infinite ? i - 1 : i;  // the largest finite number
    expect(nan ? (back[i].bits & 0x7fff) > 0x7c00 : back[i].bits == expected, "float16 there and back", kernels.name);
    expect(nan ? (to_half(values[i]).bits & 0x7fff) > 0x7c00 : to_half(values[i]).bits == i, "to_half", kernels.name);
  }
  const float ties[] = {1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 0x1p-25f, 3 * 0x1p-26f, 65519.0f};
  const std::uint16_t expected[] = {0x3c00, 0x3c02, 0, 1, 0x7bff};
  for (int i = 0; i < 5; ++i) {
    Half h;
    kernels.to_halves(ties + i, 1, &h);
    expect(h.bits == expected[i] && to_half(ties[i]).bits == expected[i], "float16 rounds to even", kernels.name);
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

void fill(Transformer& model, const Shape& shape, ThreadPool& pool) {
  const auto set = [&](const std::string& name, std::size_t size) {
    Weights::Tensor* tensor = model.weights.find(name);
    const auto values = random_floats(size);
    expect(tensor && model.weights.set(*tensor, values.data(), pool), "set", name.c_str());
  };
  const std::size_t n = shape.n_embd;
  set("wte.weight", shape.n_vocab * n);
  expect(!model.weights.complete(), "incomplete", "weights");
  set("wpe.weight", shape.n_ctx * n);
  for (int i = 0; i < shape.n_layer; ++i) {
    const std::string layer = "h." + std::to_string(i) + ".";
    const std::pair<const char*, std::pair<std::size_t, std::size_t>> sizes[] = {
        {"ln_1", {n, n}},           {"ln_2", {n, n}},           {"attn.c_attn", {3 * n * n, 3 * n}},
        {"attn.c_proj", {n * n, n}}, {"mlp.c_fc", {4 * n * n, 4 * n}}, {"mlp.c_proj", {4 * n * n, n}}};
    for (const auto& [name, size] : sizes) {
      set(layer + name + ".weight", size.first);
      set(layer + name + ".bias", size.second);
    }
  }
  set("ln_f.weight", n);
  set("ln_f.bias", n);
  expect(model.weights.complete(), "complete", "weights");
}

void check_transformer(const Kernels& kernels, const Shape& shape, Precision precision, bool half_kv, bool prompt) {
  ThreadPool pool(2);
  Transformer model(shape, precision, half_kv, kernels, pool);
  fill(model, shape, pool);
  std::vector<std::int32_t> tokens(shape.n_ctx);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = int(i * 7 % shape.n_vocab);

  std::vector<float> whole(tokens.size() * shape.n_vocab), row(shape.n_vocab);
  const int first = model.cache().create();
  model.forward({{first, tokens.data(), shape.n_ctx, shape.n_ctx, prompt}}, whole.data());
  const int second = model.cache().create();
  for (int i = 0; i < shape.n_ctx; ++i) {
    model.forward({{second, &tokens[i], 1, 1, prompt}}, row.data());
    const float* expected = whole.data() + std::size_t(i) * shape.n_vocab;
    expect(std::memcmp(row.data(), expected, row.size() * sizeof(float)) == 0, "rows alone and together", kernels.name);
  }
  model.cache().truncate(second, shape.n_ctx / 2);
  const int fork = model.cache().fork(second);
  const std::int32_t next[] = {tokens[shape.n_ctx / 2], 0};
  std::vector<float> two(2 * shape.n_vocab);
  model.forward({{second, &next[0], 1, 1, prompt}, {fork, &next[1], 1, 1, !prompt}}, two.data());
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
    for (const Precision precision : kPrecisions) {
      for (const bool prompt : {false, true}) {
        for (int m = 1; m <= 35; ++m) check_product(*kernels, pool, precision, prompt, m, 19, 45, Epilogue::store);
        for (Epilogue epilogue : {Epilogue::store, Epilogue::gelu, Epilogue::add})
          for (int m : {1, 5, 40}) check_product(*kernels, pool, precision, prompt, m, 800, 33, epilogue);
      }
      for (const bool prompt : {false, true}) {
        check_transformer(*kernels, {50, 70, 60, 5, 2}, precision, false, prompt);
        check_transformer(*kernels, {33, 40, 8, 8, 1}, precision, true, prompt);
      }
    }
    check_halves(*kernels);
    for (int n : {1, 3, 16, 60, 768}) check_layer_norm(*kernels, n);
    check_exp(*kernels);
    check_sampler(*kernels);
    std::printf("ok %s\n", kernels->name);
  }
}
