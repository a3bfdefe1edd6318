// Checks the core without Python: every set of kernels that this CPU runs against plain loops in float64, and the
// transformer's promise that a row depends on its sequence alone. Built with the sanitizers, and for other CPUs under
// an emulator, by tests/engines/test_selftest.py. Prints a line per set of kernels; exits with 1 at the first failure.
// With an argument, it also writes what the formula model computes to the files FOLDER/NAME.PRECISION, NAME a set of
// kernels.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../causal_attention.h"
#include "../draw_arguments.h"
#include "../float_mode.h"
#include "../instruction_set.h"
#include "../layer_norm.h"
#include "../matmul.h"
#include "../packed_block.h"
#include "../stepper.h"
#include "../tile_attention.h"
#include "../tile_matmul.h"
#include "../transformer.h"
#include "../weight_block.h"

using namespace gpt2lab;

namespace {

constexpr Precision kPrecisions[] = {Precision::float32, Precision::bfloat16, Precision::int8, Precision::int4};
// Those whose bits are the same on every processor.
constexpr std::pair<Precision, const char*> kExactPrecisions[] = {{Precision::float32, "float32"},
                                                                  {Precision::int8, "int8"},
                                                                  {Precision::int4, "int4"}};

constexpr int kLargestInput = 16319;  // the largest magnitude of a rounded input

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

// Returns the nearest bfloat16, ties to even.
float as_bfloat16(float x) {
  auto bits = std::bit_cast<std::uint32_t>(x);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  return std::bit_cast<float>(bits);
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

// Returns the numbers that a packed matrix stands for, [k, n].
std::vector<float> unpacked(const PackedMatrix& matrix) {
  std::vector<float> values(std::size_t(matrix.k) * matrix.n), column(matrix.k);
  for (int j = 0; j < matrix.n; ++j) {
    matrix.column(j, column.data());
    for (int i = 0; i < matrix.k; ++i) values[std::size_t(i) * matrix.n + j] = column[i];
  }
  return values;
}

// Checks what pack() stored. weights/integers.py defines int8 and int4 to the bit; here they are merely near.
void check_packing(const std::vector<float>& source, const std::vector<float>& stored, Precision precision) {
  float largest = 0;
  for (const float x : source) largest = std::max(largest, std::fabs(x));
  const float error = largest * (precision == Precision::int8 ? 0.51f / 127 : 0.16f);
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (is_integer(precision)) expect(std::fabs(stored[i] - source[i]) <= error, "packed integers", "pack");
    else if (precision == Precision::bfloat16) expect(stored[i] == as_bfloat16(source[i]), "packed bfloat16", "pack");
    else expect(stored[i] == source[i], "packed float32", "pack");
  }
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

void check_activations(const Kernels& kernels) {
  const std::pair<Activation, double (*)(double)> all[] = {
      {Activation::gelu_new, gelu},
      {Activation::gelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }},
      {Activation::relu, [](double x) { return std::max(x, 0.0); }},
      {Activation::silu, [](double x) { return x / (1 + std::exp(-x)); }}};
  for (const auto& [activation, exact] : all) {
    std::vector<float> x(1601), y;  // no multiple of a vector
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i) / 50 - 16;
    x[0] = -1e30f, x[1] = 1e30f, x[2] = -1e-40f;
    y = x;
    kernels.activate(activation, y.data(), int(y.size()));
    for (std::size_t i = 0; i < x.size(); ++i) expect(near(y[i], exact(x[i]), 4e-7), "activation", kernels.name);
  }
}

void check_gelu_gradient(const Kernels& kernels) {
  const auto x = random_floats(37), d = random_floats(37);
  std::vector<float> out(37);
  kernels.gelu_gradient(x.data(), d.data(), 37, out.data());
  for (int i = 0; i < 37; ++i)
    expect(near(out[i], d[i] * (gelu(x[i] + 1e-5) - gelu(x[i] - 1e-5)) / 2e-5, 1e-4), "gradient of GELU", kernels.name);
}

// Returns the scale of block `block` of output j.
template <Precision kP>
float scale_of(const PackedMatrix& matrix, int block, int j) {
  using Block = WeightBlock<kP>;
  const std::byte* at = matrix.tiles + j / kTile * matrix.tile_bytes() + std::size_t(block) * Block::kWhole;
  float scales[kTile];
  std::memcpy(scales, at + Block::scales_at(block_depth(matrix.k, block)), sizeof scales);
  return scales[j % kTile];
}

// Returns y + x · column j of an int8 or int4 matrix, whose numbers are b [k, n]: in each block an exact integer, then
// the scales.
float integer_product(const float* x, const std::vector<float>& b, const PackedMatrix& matrix, int j, float y) {
  for (int first = 0; first < matrix.k; first += kBlock) {
    const int end = std::min(matrix.k, first + kBlock);
    float largest = 0;
    for (int i = first; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float inverse = kLargestInput / largest;
    const float scale = matrix.precision == Precision::int8 ? scale_of<Precision::int8>(matrix, first / kBlock, j)
                                                            : scale_of<Precision::int4>(matrix, first / kBlock, j);
    std::int64_t sum = 0;
    for (int i = first; i < end; ++i)
      sum += std::int64_t(std::nearbyint(x[i] * inverse)) * std::int64_t(b[std::size_t(i) * matrix.n + j] / scale);
    y += float(sum) * (scale * (largest / kLargestInput));
  }
  return y;
}

// Returns rows [m, k] prepared for products in `precision`; empty if these read rows directly.
Array<std::byte> prepared_rows(const Kernels& kernels, const std::vector<float>& rows, int m, int k,
                               Precision precision) {
  const std::size_t group = kernels.prepared_bytes(precision, k);
  Array<std::byte> prepared((m + kRowGroup - 1) / kRowGroup * group);
  for (int r = 0; r < m && group > 0; ++r)
    kernels.prepare(rows.data() + std::size_t(r) * k, k, precision, r, prepared.data() + r / kRowGroup * group);
  return prepared;
}

// Computes c = a · matrix + bias, or the sum of that and c, in one call of the kernels. `bias` may be null. The outputs
// go to `blocks` instead, if it is not null.
void multiply(const Kernels& kernels, const std::vector<float>& a, const PackedMatrix& matrix, const float* bias,
              Epilogue epilogue, std::vector<float>& c, std::byte* blocks = nullptr) {
  const int k = matrix.k, n = matrix.n, m = int(c.size()) / n;
  const Array<std::byte> prepared = prepared_rows(kernels, a, m, k, matrix.precision);
  Array<std::byte> scratch(kScratchBytes);
  std::vector<float> partial(std::size_t(m) * matrix.tile_count() * kTile);
  kernels.product({matrix.precision, a.data(), std::size_t(k), prepared.data(), matrix.tiles, matrix.tile_bytes(), bias,
                   c.data(), std::size_t(n), blocks, partial.data(), scratch.data(), m, k, n, epilogue, nullptr},
                  0, matrix.tile_count());
}

// Checks a product: of integers exactly, of floats against a sum in float64.
void check_product(const Kernels& kernels, ThreadPool& pool, Precision precision, int m, int k, int n,
                   Epilogue epilogue, bool biased = true) {
  const double tolerance = 2e-5 + 1e-7 * k;
  auto a = random_floats(std::size_t(m) * k);
  const auto source = random_floats(std::size_t(k) * n), before = random_floats(std::size_t(m) * n);
  const TestMatrix matrix = packed_matrix(source, k, n, precision, pool);
  const auto b = unpacked(matrix.packed);
  check_packing(source, b, precision);
  const FloatArray bias = random_array(n, biased ? 1 : 0);
  auto c = before;
  multiply(kernels, a, matrix.packed, biased ? bias.data() : nullptr, epilogue, c);
  if (precision == Precision::bfloat16 && kernels.prepared_bytes(precision, k) > 0)
    for (float& x : a) x = as_bfloat16(x);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      const float* x = a.data() + std::size_t(i) * k;
      double y = bias.data()[j];
      if (is_integer(precision)) y = integer_product(x, b, matrix.packed, j, bias.data()[j]);
      else
        for (int l = 0; l < k; ++l) y += double(x[l]) * b[std::size_t(l) * n + j];
      if (epilogue == Epilogue::gelu) y = gelu(y);
      if (epilogue == Epilogue::add) y += before[i * n + j];
      const bool exact = is_integer(precision) && epilogue != Epilogue::gelu;
      expect(exact ? c[i * n + j] == float(y) : near(c[i * n + j], y, tolerance), "product", kernels.name);
    }
  if (!kernels.finishes_blocks(precision) || epilogue == Epilogue::add) return;
  const Array<std::byte> expected = prepared_rows(kernels, c, m, n, precision);
  Array<std::byte> blocks(expected.size());
  multiply(kernels, a, matrix.packed, biased ? bias.data() : nullptr, epilogue, c, blocks.data());
  expect(std::memcmp(blocks.data(), expected.data(), blocks.size()) == 0, "finished blocks", kernels.name);
}

// Returns a view of [rows, columns] numbers that lie row after row or, if `transposed`, column after column.
MatrixView view_of(const std::vector<float>& x, int rows, int columns, bool transposed) {
  if (transposed) return {x.data(), 1, std::size_t(rows)};
  return {x.data(), std::size_t(columns), 1};
}

void check_matmul(const Kernels& kernels, int m, int k, int n, bool transposed, bool add) {
  const auto a = random_floats(std::size_t(m) * k), b = random_floats(std::size_t(k) * n), bias = random_floats(n);
  const MatrixView left = view_of(a, m, k, transposed), right = view_of(b, k, n, !transposed);
  const auto before = random_floats(std::size_t(m) * (n + 3));
  std::vector<float> first;
  for (int threads = 1; threads <= 3; ++threads) {
    ThreadPool pool(threads);
    Matmul matmul(kernels, pool);
    auto c = before;
    matmul.run(left, right, {add ? nullptr : bias.data(), add, add}, c.data(), n + 3, m, n, k);
    if (threads == 1) first = c;
    expect(c == first, "the same sums in every number of threads", kernels.name);
  }
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n + 3; ++j) {
      double y = before[i * (n + 3) + j];
      if (j < n) {
        if (!add) y = bias[j];
        for (int x = 0; x < k; ++x) {
          const double one = left.data[i * left.row + x * left.column];
          y += (add ? gelu(one) : one) * right.data[x * right.row + j * right.column];
        }
      }
      expect(near(first[i * (n + 3) + j], y, 1e-4), "product of two matrices", kernels.name);
    }
}

float rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

std::vector<BFloat16> as_bfloat16(const std::vector<float>& x) {
  std::vector<BFloat16> result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    result[i].bits = std::uint16_t(std::bit_cast<std::uint32_t>(rounded(x[i])) >> 16);
  return result;
}

float widened(BFloat16 x) { return std::bit_cast<float>(std::uint32_t(x.bits) << 16); }

// Returns the lines of a [count, k] matrix, which lie one after the other or, if `across`, side by side.
Lines lines_of(const void* data, bool wide, int count, int k, bool across) {
  if (across) return {data, wide, 1, std::size_t(count)};
  return {data, wide, std::size_t(k), 1};
}

// Multiplies with rows in float32 and columns in bfloat16, or, if `across`, with both the other way round.
void check_tile_matmul(const TileKernels& tiles, int m, int k, int n, bool across, bool add) {
  const auto a = random_floats(std::size_t(m) * k), b = random_floats(std::size_t(k) * n), bias = random_floats(n);
  const auto before = random_floats(std::size_t(m) * (n + 3));
  const auto small_a = as_bfloat16(a), small_b = as_bfloat16(b);
  const Lines rows = lines_of(across ? (const void*)small_a.data() : a.data(), !across, m, k, across);
  const Lines columns = lines_of(across ? (const void*)b.data() : small_b.data(), across, n, k, across);
  std::vector<float> first;
  for (int threads = 1; threads <= 3; ++threads) {
    ThreadPool pool(threads);
    TileMatmul matmul(tiles, pool);
    auto c = before;
    std::vector<BFloat16> small(c.size());
    const std::size_t row = n + 3;
    const TileTerms terms{add ? nullptr : bias.data(), add ? c.data() : nullptr, row, add};
    const ResultRows out = add ? ResultRows{c.data(), true, row} : ResultRows{small.data(), false, row};
    matmul.run(rows, columns, terms, out, m, n, k);
    if (!add)
      for (std::size_t i = 0; i < c.size(); ++i)
        if (int(i % row) < n) c[i] = widened(small[i]);
    if (threads == 1) first = c;
    expect(c == first, "the same sums in every number of threads", "tiles");
  }
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n + 3; ++j) {
      double y = before[i * (n + 3) + j], size = 1;
      if (j < n) {
        if (!add) y = bias[j];
        size += std::abs(y);
        for (int x = 0; x < k; ++x) {
          const float exact = a[i * rows.line + x * rows.step], one = add && rows.wide ? exact : rounded(exact);
          const double product =
              double(add ? rounded(gelu(one)) : one) * rounded(b[j * columns.line + x * columns.step]);
          y += product, size += std::abs(product);
        }
      }
      expect(std::abs(first[i * (n + 3) + j] - y) <= 5e-3 * size, "product in tiles", "tiles");
    }
}

// Checks attention in tiles beside that in float32, on numbers that bfloat16 holds.
void check_tile_attention(const Kernels& kernels, const TileKernels& tiles, const AttentionShape& shape) {
  const std::size_t size = std::size_t(shape.batch) * shape.time * shape.width();
  auto qkv = random_floats(3 * size), d_out = random_floats(size);
  for (auto* x : {&qkv, &d_out})
    for (float& each : *x) each = rounded(each);
  std::vector<float> out(size), sums(std::size_t(shape.batch) * shape.n_head * shape.time), d_qkv(3 * size);
  auto small_qkv = as_bfloat16(qkv);
  const auto small_d_out = as_bfloat16(d_out);
  std::vector<BFloat16> small_out(size);
  std::vector<float> small_sums(sums.size());
  ThreadPool pool(2);
  CausalAttention attention(kernels, pool);
  attention.forward(shape, qkv.data(), out.data(), sums.data());
  attention.backward(shape, qkv.data(), sums.data(), d_out.data(), d_qkv.data());
  TileAttention small(kernels, tiles, pool);
  small.forward(shape, small_qkv.data(), small_out.data(), small_sums.data());
  small.backward(shape, small_qkv.data(), small_sums.data(), small_d_out.data(), small_qkv.data());
  for (std::size_t i = 0; i < size; ++i) expect(near(widened(small_out[i]), out[i], 0.02), "attention", "tiles");
  for (std::size_t i = 0; i < 3 * size; ++i)
    expect(near(widened(small_qkv[i]), d_qkv[i], 0.05), "gradient of attention", "tiles");
}

// Checks a row of logits, of which the last is the target.
void check_cross_entropy(const TileKernels& tiles, int n) {
  const auto numbers = random_floats(n);
  auto row = as_bfloat16(numbers);
  double sum = 0;
  for (const float x : numbers) sum += std::exp(double(rounded(x)));
  const float loss = tiles.cross_entropy(row.data(), n, n - 1);
  expect(near(loss, std::log(sum) - rounded(numbers[n - 1]), 1e-5), "cross-entropy", "tiles");
  for (int i = 0; i < n; ++i)
    expect(near(widened(row[i]), std::exp(double(rounded(numbers[i]))) / sum - (i == n - 1), 5e-3),
           "gradient of cross-entropy", "tiles");
}

void check_tiles(const Kernels& kernels, const TileKernels& tiles) {
  for (const bool across : {false, true})
    for (const bool add : {false, true}) {
      for (int m : {1, 2, 17, 40}) check_tile_matmul(tiles, m, 19, 45, across, add);
      check_tile_matmul(tiles, 14, 2100, 40, across, add);  // more than a part of k, of columns, of rows
      check_tile_matmul(tiles, 14, 3, 900, across, add);
      check_tile_matmul(tiles, 1100, 3, 5, across, add);
    }
  for (const AttentionShape& shape : {AttentionShape{1, 1, 1, 1}, {2, 99, 3, 33}, {1, 200, 1, 64}})
    check_tile_attention(kernels, tiles, shape);
  for (int n : {1, 15, 16, 33, 1000}) check_cross_entropy(tiles, n);
}

// Checks that a row that sees only one position returns its values. The sanitizers check memory and threads.
void check_attention(const Kernels& kernels, const AttentionShape& shape) {
  const std::size_t size = std::size_t(shape.batch) * shape.time * shape.width();
  const auto qkv = random_floats(3 * size), d_out = random_floats(size);
  std::vector<float> out(size), sums(std::size_t(shape.batch) * shape.n_head * shape.time), d_qkv(3 * size);
  ThreadPool pool(2);
  CausalAttention attention(kernels, pool);
  attention.forward(shape, qkv.data(), out.data(), sums.data());
  attention.backward(shape, qkv.data(), sums.data(), d_out.data(), d_qkv.data());
  for (int b = 0; b < shape.batch; ++b) {
    const std::size_t first = std::size_t(b) * shape.time * shape.width();
    for (std::size_t i = 0; i < shape.width(); ++i)
      expect(near(out[first + i], qkv[3 * first + 2 * shape.width() + i], 1e-6), "attention", kernels.name);
  }
  for (const float d : d_qkv) expect(std::isfinite(d), "gradient of attention", kernels.name);
}

// The packed keys and values of some sequences, with the same blocks at their beginning.
struct PackedSequences {
  bool int8;
  PackedBlock block;
  Array<std::byte> memory;
  std::vector<std::vector<std::byte*>> blocks;  // of every sequence

  PackedSequences(KVPrecision format, int head_dim, const std::vector<int>& positions, int shared)
      : int8(format == KVPrecision::int8), block(head_dim, int8 ? 1 : 2) {
    std::size_t count = shared;
    for (const int position : positions) count += position / kTile + 1;
    memory = Array<std::byte>(count * bytes());
    if (int8) {
      for (std::size_t i = 0; i < memory.size(); ++i) memory.data()[i] = std::byte(generator() % 255 - 127);
    } else {
      auto* numbers = reinterpret_cast<std::uint16_t*>(memory.data());
      for (std::size_t i = 0; i < memory.size() / 2; ++i)  // the upper halves of numbers around 1
        numbers[i] = std::uint16_t(generator() % 2 << 15 | (0x3f00 + generator() % 256));
    }
    std::byte* next = memory.data() + shared * bytes();
    for (const int position : positions) {
      blocks.emplace_back();
      for (int b = 0; b < std::max(shared, position / kTile + 1); ++b) {
        blocks.back().push_back(b < shared ? memory.data() + b * bytes() : next);
        if (b >= shared) next += bytes();
        for (int slot = 0; slot < kTile && int8; ++slot)
          for (const int kind : {0, kTile}) scale(blocks.back()[b], kind + slot) = 0.01f * float(1 + slot % 3);
        for (int i = head_dim; i < block.stride && !int8; ++i)
          for (int slot = 0; slot < kTile; ++slot) *number(blocks.back()[b], 2, i, slot, PackedBlock::kKeyStep) = {};
      }
    }
  }
  std::size_t bytes() const { return block.scales_at() + (int8 ? 2 * kTile * sizeof(float) : 0); }
  float& scale(std::byte* at, int i) const { return reinterpret_cast<float*>(at + block.scales_at())[i]; }
  // Returns number i of a slot, `together` of one kind side by side.
  std::uint16_t* number(std::byte* at, int together, int i, int slot, int step) const {
    return reinterpret_cast<std::uint16_t*>(at + i / together * step) + slot * together + i % together;
  }
  float key(int row, int position, int i) const {
    std::byte* at = blocks[row][position / kTile];
    const int slot = position % kTile;
    if (!int8) return std::bit_cast<float>(std::uint32_t(*number(at, 2, i, slot, PackedBlock::kKeyStep)) << 16);
    return float(std::int8_t(at[i / 4 * PackedBlock::kKeyStep + slot * 4 + i % 4])) * scale(at, slot);
  }
  float value(int row, int position, int i) const {
    std::byte* at = blocks[row][position / kTile];
    const int slot = position % kTile;
    if (!int8)
      return std::bit_cast<float>(std::uint32_t(*number(at + block.values_at(), 2, slot, i, block.value_step())) << 16);
    const std::byte* values = at + block.values_at() + slot / 4 * block.value_step();
    return float(std::int8_t(values[i * 4 + slot % 4])) * scale(at, kTile + slot);
  }
};

// Checks packed attention of one row for each position: against sums in float64, and that a row has the same bits
// alone. What lies behind all rows' positions must not matter; in bfloat16 it is finite.
void check_packed_attention(const Kernels& kernels, KVPrecision format, int head_dim, const std::vector<int>& positions,
                            int shared) {
  const PackedSequences sequences(format, head_dim, positions, shared);
  const int m = int(positions.size());
  const auto q = random_floats(std::size_t(m) * head_dim);
  std::vector<float> together(q.size()), alone(q.size());
  Array<std::byte> scratch(kernels.packed_attention_bytes(format, head_dim));
  std::vector<SequenceRow> rows;
  for (int r = 0; r < m; ++r) {
    for (int position = positions[r] + 1; position / kTile < int(sequences.blocks[r].size()); ++position)
      if (position / kTile >= shared || position > *std::max_element(positions.begin(), positions.end()))
        for (const int kind : {0, kTile}) {
          std::byte* at = sequences.blocks[r][position / kTile];
          if (sequences.int8) sequences.scale(at, kind + position % kTile) = NAN;
          else *sequences.number(at, 2, 0, position % kTile, PackedBlock::kKeyStep) = 0x7fc0;  // NaN, in the key
        }
    const auto* blocks = sequences.blocks[r].data();
    rows.push_back({&q[r * head_dim], blocks, blocks, positions[r], &together[r * head_dim]});
  }
  const double scale = 1 / std::sqrt(double(head_dim));
  const auto log2_scale = float(scale * 1.4426950408889634);
  kernels.packed_attention({rows.data(), 0, 0, format, m, shared, head_dim, log2_scale, scratch.data()});
  for (int r = 0; r < m; ++r) {
    SequenceRow row = rows[r];
    row.out = &alone[r * head_dim];
    kernels.packed_attention({&row, 0, 0, format, 1, 0, head_dim, log2_scale, scratch.data()});
    std::vector<double> p(positions[r] + 1), out(head_dim);
    double largest = -INFINITY, sum = 0;
    for (int at = 0; at <= positions[r]; ++at) {
      for (int i = 0; i < head_dim; ++i) p[at] += scale * q[r * head_dim + i] * double(sequences.key(r, at, i));
      largest = std::max(largest, p[at]);
    }
    for (int at = 0; at <= positions[r]; ++at) {
      p[at] = std::exp(p[at] - largest);
      sum += p[at];
      for (int i = 0; i < head_dim; ++i) out[i] += p[at] * sequences.value(r, at, i);
    }
    for (int i = 0; i < head_dim; ++i)
      expect(near(together[r * head_dim + i], out[i] / sum, 5e-3), "packed attention", kernels.name);
  }
  expect(together == alone, "packed attention of rows alone and together", kernels.name);
}

void check_packed_attention(const Kernels& kernels) {
  for (const KVPrecision format : {KVPrecision::int8, KVPrecision::bfloat16})
    for (const int head_dim : {3, 40, 64, 96, 300})
      for (const int m : {1, 4, 7, 16}) {
        if (kernels.packed_attention_bytes(format, head_dim) == 0) continue;
        std::vector<int> prompt, steps;
        for (int r = 0; r < m; ++r) {
          prompt.push_back(250 + r);
          steps.push_back(100 + 47 * r);
        }
        // all blocks are the same, some, or none
        check_packed_attention(kernels, format, head_dim, prompt, prompt.back() / kTile + 1);
        check_packed_attention(kernels, format, head_dim, steps, 3);
        check_packed_attention(kernels, format, head_dim, steps, 0);
      }
}

// Checks the rounding of keys (four `together`) or values, that what lies between them stays, and the scale.
void check_to_int8(const Kernels& kernels, int n, int together) {
  constexpr std::int8_t kOther = -128;
  const std::size_t distance = together + 3;
  auto x = random_floats(n);
  for (const float special : {1.0f, 0.0f, 1e-31f, -INFINITY, NAN}) {
    if (special == 1) x[n / 2] = 5;
    else if (std::isfinite(special)) std::fill(x.begin(), x.end(), special);
    else x[n - 1] = special;
    std::vector<Int8> out((n - 1) / together * distance + (n - 1) % together + 1, {kOther});
    auto expected = out;
    for (int i = 0; i < n; ++i)
      expected[i / together * distance + i % together].value =
          special == 1 ? std::int8_t(std::nearbyint(x[i] * (127 / 5.0f))) : std::int8_t(0);
    const float scale = kernels.to_int8(x.data(), n, together, distance, out.data());
    for (std::size_t i = 0; i < out.size(); ++i)
      expect(out[i].value == expected[i].value, "numbers as int8", kernels.name);
    const float wanted = special == 1 ? 5 / 127.0f : std::isfinite(special) ? 0 : std::fabs(special) / 127;
    expect(scale == wanted || (std::isnan(scale) && std::isnan(wanted)), "scale of int8", kernels.name);
  }
}

// Checks that four rows at once are rounded as each alone, that they lie side by side, and the zeros behind them.
void check_four_to_int8(const Kernels& kernels, int n) {
  const std::size_t row = n + 5, width = rounded_up(n, kTile);
  auto x = random_floats(int(4 * row));
  x[row] = INFINITY;
  std::fill_n(x.begin() + 2 * row, n, 0.0f);
  std::vector<Int8> out(4 * width + 4, {99}), expected = out;
  std::fill_n(expected.begin(), 4 * width, Int8{0});
  float scales[4];
  kernels.four_to_int8(x.data(), row, n, out.data(), scales);
  for (int r = 0; r < 4; ++r)
    expect(scales[r] == kernels.to_int8(x.data() + r * row, n, 1, 4, expected.data() + r), "scales of four rows",
           kernels.name);
  for (std::size_t i = 0; i < out.size(); ++i)
    expect(out[i].value == expected[i].value, "four rows as int8", kernels.name);
}

// Checks that storing several slots of a block at once gives the bytes that storing each alone gives.
void check_stored_slots(const Kernels& kernels, int head_dim) {
  const std::size_t row = 2 * head_dim + 3;
  const auto x = random_floats(int(kTile * row));
  for (const KVPrecision format :
       {KVPrecision::float32, KVPrecision::float16, KVPrecision::bfloat16, KVPrecision::int8}) {
    KVCache cache(1, 1, head_dim, format, kernels.packed_attention_bytes(format, head_dim) > 0);
    const int sequences[] = {cache.create(), cache.create()};
    std::byte* keys[2];
    for (int i = 0; i < 2; ++i) {
      cache.extend(sequences[i], kTile);
      keys[i] = cache.keys(sequences[i], 0, 0, 0);
    }
    const std::pair<int, int> runs[] = {{0, 32}, {1, 3}, {2, 9}, {4, 8}, {30, 2}};
    for (const auto& [slot, count] : runs) {
      for (std::byte* each : keys) std::memset(each, 0, cache.block_bytes());
      cache.store(kernels, keys[0], slot, count, x.data(), x.data() + head_dim, row);
      for (int i = 0; i < count; ++i)
        cache.store(kernels, keys[1], slot + i, 1, x.data() + i * row, x.data() + i * row + head_dim, 0);
      expect(std::memcmp(keys[0], keys[1], cache.block_bytes()) == 0, "several stored slots", kernels.name);
    }
  }
}

// Checks a packed key or value, and that nothing between its numbers changes.
void check_pack_bfloat16(const Kernels& kernels, int n, int together) {
  const std::size_t distance = together == 2 ? 128 : 4;
  auto x = random_floats(n);
  for (const float last : {x[n - 1], -3.4e38f, INFINITY, NAN}) {
    x[n - 1] = last;
    std::vector<std::byte> out((n / together + 1) * distance + 64, std::byte(0xa5)), expected = out;
    for (int i = 0; i < n; ++i) {
      BFloat16 rounded;
      kernels.to_bfloat16(&x[i], 1, &rounded);
      std::memcpy(&expected[i / together * distance + i % together * sizeof rounded], &rounded, sizeof rounded);
    }
    const bool finite = kernels.pack_bfloat16(x.data(), n, together, distance, reinterpret_cast<BFloat16*>(out.data()));
    expect(finite == (std::abs(last) < 3.39e38f), "packed bfloat16 that is not finite", kernels.name);
    if (!std::isnan(last)) expect(out == expected, "packed bfloat16", kernels.name);
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

// Checks the sums of the gradients, and that they are the same for every number of threads.
void check_layer_norm_gradient(const Kernels& kernels, int rows, int n) {
  const std::size_t size = std::size_t(rows) * n;
  const auto x = random_floats(size), gain = random_floats(n), bias = random_floats(n), d = random_floats(size);
  std::vector<float> first;
  for (int threads = 1; threads <= 3; ++threads) {
    ThreadPool pool(threads);
    LayerNorm norm(kernels, pool);
    std::vector<float> out(size), d_x = d, d_gain(n), d_bias(n);
    norm.forward(x.data(), gain.data(), bias.data(), 1e-5f, rows, n, out.data());
    norm.backward(x.data(), gain.data(), 1e-5f, rows, n, d_x.data(), d_gain.data(), d_bias.data());
    for (int i = 0; i < n; ++i) {
      double along = 0, plain = 0;
      for (int r = 0; r < rows; ++r) {
        along += d[r * n + i] * (out[r * n + i] - bias[i]);
        plain += d[r * n + i];
      }
      expect(near(d_gain[i] * gain[i], along, 1e-3) && near(d_bias[i], plain, 1e-3), "gradient of gain and bias",
             kernels.name);
    }
    for (int r = 0; r < rows; ++r) {  // adding a number to a whole row changes nothing
      double total = 0;
      for (int i = 0; i < n; ++i) total += d_x[r * n + i];
      expect(std::abs(total) < 1e-2, "gradient of layer norm", kernels.name);
    }
    d_x.insert(d_x.end(), d_gain.begin(), d_gain.end());
    if (threads == 1) first = d_x;
    expect(d_x == first, "the same gradients in every number of threads", kernels.name);
  }
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

// Sets every tensor, in the order of the forward pass, to what `values` returns for its name and size.
void fill(Transformer& model, const Shape& shape, ThreadPool& pool,
          const std::function<std::vector<float>(const std::string&, std::size_t)>& values_of) {
  const auto set = [&](const std::string& name, std::size_t size) {
    Weights::Tensor* tensor = model.weights.find(name);
    const auto values = values_of(name, size);
    expect(tensor && model.weights.set(*tensor, values.data(), pool), "set", name.c_str());
  };
  const std::size_t n = shape.n_embd, inner = shape.n_inner;
  set("wte.weight", shape.n_vocab * n);
  expect(!model.weights.complete(), "incomplete", "weights");
  set("wpe.weight", shape.n_ctx * n);
  for (int i = 0; i < shape.n_layer; ++i) {
    const std::string layer = "h." + std::to_string(i) + ".";
    const std::pair<const char*, std::pair<std::size_t, std::size_t>> sizes[] = {
        {"ln_1", {n, n}}, {"attn.c_attn", {3 * n * n, 3 * n}}, {"attn.c_proj", {n * n, n}},
        {"ln_2", {n, n}}, {"mlp.c_fc", {n * inner, inner}},    {"mlp.c_proj", {inner * n, n}}};
    for (const auto& [name, size] : sizes) {
      set(layer + name + ".weight", size.first);
      set(layer + name + ".bias", size.second);
    }
  }
  set("ln_f.weight", n);
  set("ln_f.bias", n);
  if (!shape.tied) set("lm_head.weight", shape.n_vocab * n);
  expect(model.weights.complete(), "complete", "weights");
}

// Checks right guesses, drawn at once from more rows than a pass has, and a step that fails.
void check_steps(const Kernels& kernels, Transformer& model, ThreadPool& pool, const Shape& shape) {
  Stepper stepper(model, kernels, pool, shape.n_vocab);
  const int n = shape.n_ctx;
  const std::vector<int> sequences = {model.cache().create(), model.cache().create(), model.cache().create(),
                                      model.cache().create()};
  std::vector<Draw> draws(4);
  for (std::uint64_t stream = 0; stream < 4; ++stream) {
    draws[stream].stream = stream;
    draws[stream].params.frequency_penalty = 0.1;
  }
  std::vector<std::vector<std::int32_t>> texts(4, {1});
  for (int i = 0; i + 1 < n; ++i) {
    std::vector<Feed> feeds;
    std::vector<Draw> next = draws;
    for (int s = 0; s < 4; ++s) {
      feeds.push_back({sequences[s], &texts[s].back(), 1, 1});
      next[s].position = i;
      next[s].history = {texts[s].data() + 1, texts[s].size() - 1};
    }
    const std::int32_t counts[] = {1, 1, 1, 1}, top[] = {0, 2, 0, 0};
    Chains chains(next, feeds, counts, top, shape.n_vocab);
    expect(stepper.step(feeds, chains.chains), "step", kernels.name);
    for (int s = 0; s < 4; ++s) texts[s].push_back(chains.results[s].token);
  }
  for (const int sequence : sequences) model.cache().truncate(sequence, 0);

  std::vector<Feed> feeds;
  for (int s = 0; s < 4; ++s) feeds.push_back({sequences[s], texts[s].data(), n - 1, 0});
  const std::vector<std::int32_t> counts(4, n - 1), top = {1, 0, 0, 3};
  Chains chains(draws, feeds, counts, top, shape.n_vocab);
  expect(stepper.step(feeds, chains.chains), "step of guesses", kernels.name);
  for (int s = 0; s < 4; ++s) {
    expect(chains.chains[s].drawn == n - 1, "right guesses", kernels.name);
    for (int i = 0; i < n - 1; ++i)
      expect(chains.chains[s].results[i].token == texts[s][i + 1], "draws of guesses", kernels.name);
  }
  for (const int sequence : sequences) model.cache().truncate(sequence, 0);

  const std::vector<double> bans(shape.n_vocab, -INFINITY);
  std::vector<std::int32_t> all(shape.n_vocab);
  for (int i = 0; i < shape.n_vocab; ++i) all[i] = i;
  draws[3].bias_ids = all.data();
  draws[3].bias_values = bans.data();
  draws[3].bias_size = all.size();
  Chains failing(draws, feeds, counts, top, shape.n_vocab);
  expect(!stepper.step(feeds, failing.chains), "step that fails", kernels.name);
  for (const int sequence : sequences) {
    expect(model.cache().length(sequence) == 0, "what was fed is taken back", kernels.name);
    model.cache().free(sequence);
  }
}

// Checks that recording changes no bit, that setting what was recorded or adding zeros changes none, and that a change
// reaches only its own sequence.
void check_hooks(const Kernels& kernels, Transformer& model, const Shape& shape) {
  const std::size_t n = shape.n_ctx, width = shape.n_embd;
  std::vector<std::int32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = int(i * 5 % shape.n_vocab);
  const auto logits_of = [&](const Edits& edits, const Recording* recording) {
    std::vector<float> logits(2 * n * shape.n_vocab);
    const int sequence = model.cache().create(), plain = model.cache().create();
    model.hooks().set(sequence, edits);
    std::vector<Feed> feeds = {{sequence, tokens.data(), int(n), int(n)}};
    if (!recording) feeds.push_back({plain, tokens.data(), int(n), int(n)});
    model.forward(feeds, logits.data(), recording);
    for (const int each : {sequence, plain}) {
      model.hooks().erase(each);
      model.cache().free(each);
    }
    return logits;
  };
  const std::size_t size = n * shape.n_vocab;
  const auto same = [&](const std::vector<float>& a, const std::vector<float>& b, std::size_t at) {
    return std::memcmp(a.data(), b.data() + at, size * sizeof(float)) == 0;
  };
  const auto plain = logits_of({}, nullptr);
  std::vector<std::vector<float>> memory;
  Recording recording{{}, 0, n};
  for (int site = 0; site < kSites; ++site) {
    memory.emplace_back((shape.n_layer + 1) * n * width);
    recording.sites[site] = memory.back().data();
  }
  expect(same(logits_of({}, &recording), plain, 0), "recording changes no bit", kernels.name);
  Edits edits;
  for (int site = 0; site < kSites; ++site)
    for (int layer = 0; layer < shape.n_layer; ++layer) {
      const float* values = memory[site].data() + layer * n * width;
      edits.push_back({Site(site), layer, false, 0, int(width), 0, int(n), {values, values + n * width}});
      edits.push_back({Site(site), layer, true, 0, int(width), 0, 0, std::vector<float>(width)});
    }
  expect(same(logits_of(edits, nullptr), plain, 0), "an identity patch changes no bit", kernels.name);
  std::vector<float> direction(width);
  direction[0] = 5;  // a layer norm removes a common offset of all numbers
  const auto steered = logits_of({{Site::resid_mid, 0, true, 0, int(width), 0, 0, direction}}, nullptr);
  expect(!same(steered, plain, 0), "steering changes logits", kernels.name);
  expect(same(plain, steered, size), "steering leaves the neighbour alone", kernels.name);
  std::vector<float> rows(size);
  model.unembed(memory[int(Site::resid_pre)].data() + shape.n_layer * n * width, int(n), rows.data());
  expect(same(rows, plain, 0), "the end of the residual stream gives the logits", kernels.name);
}

void check_kv_cache() {
  KVCache cache(1, 1, 8, KVPrecision::float32, false);
  const auto fill = [&](int blocks) {
    const int sequence = cache.create();
    cache.extend(sequence, blocks * kTile);
    for (int block = 0; block < blocks; ++block) cache.keys(sequence, 0, 0, block)[0] = std::byte(sequence);
    return sequence;
  };
  const int first = fill(4), second = fill(4), third = fill(4);
  cache.free(second);
  cache.trim();
  expect(cache.blocks_in_use() == 8 && cache.bytes_held() == 8 * cache.block_bytes(), "unused memory is returned", "");
  const int again = fill(6);
  for (const int sequence : {first, third, again})
    expect(cache.keys(sequence, 0, 0, 3)[0] == std::byte(sequence), "used memory stays", "");
  expect(cache.blocks_in_use() == 14 && cache.bytes_held() == 16 * cache.block_bytes(), "memory is taken again", "");
  for (const int sequence : {first, third, again}) cache.free(sequence);
  cache.trim();
  expect(cache.blocks_in_use() == 0 && cache.bytes_held() == 0, "all memory is returned", "");
  const int large = fill(int((std::size_t(80) << 20) / cache.block_bytes()));
  cache.free(large);
  expect(cache.bytes_held() == 0, "much memory is returned with the last sequence", "");
}

// Stores keys and values, one of which is infinite, in bfloat16: the rows that see it are NaN, and no others change.
// They are copied into another sequence, too.
void check_stored_bfloat16(const Kernels& kernels) {
  constexpr int kHeadDim = 300, kPositions = 40;
  const bool packed = kernels.packed_attention_bytes(KVPrecision::bfloat16, kHeadDim) > 0;
  for (const int infinite : {-1, 5, 290}) {
    KVCache cache(1, 1, kHeadDim, KVPrecision::bfloat16, packed);
    const int sequence = cache.create(), copy = cache.create();
    for (const int each : {sequence, copy}) cache.extend(each, kPositions);
    for (int at = 0; at < kPositions; ++at) {
      const auto key = random_floats(kHeadDim);
      auto value = random_floats(kHeadDim);
      if (at == 35 && infinite >= 0) value[infinite] = INFINITY;
      cache.store(kernels, cache.keys(sequence, 0, 0, at / kTile), at % kTile, 1, key.data(), value.data(), 0);
    }
    std::vector<std::byte> numbers(2 * kPositions * cache.row_bytes()), again(numbers.size());
    cache.read(sequence, numbers.data());
    cache.write(copy, numbers.data());
    cache.read(copy, again.data());
    expect(numbers == again, "a copy of a cache in bfloat16", kernels.name);
    if (!packed) continue;
    Array<std::byte> scratch(kernels.packed_attention_bytes(KVPrecision::bfloat16, kHeadDim));
    const auto q = random_floats(kHeadDim);
    for (const int each : {sequence, copy}) {
      const auto found = cache.blocks(each);
      const std::vector<const std::byte*> blocks(found.begin(), found.end());
      for (const int position : {34, 35, 39}) {
        std::vector<float> out(kHeadDim);
        const SequenceRow row{q.data(), blocks.data(), blocks.data(), position, out.data()};
        kernels.packed_attention({&row, 0, 0, KVPrecision::bfloat16, 1, 0, kHeadDim, 0.1f, scratch.data()});
        for (const float x : out)
          expect(std::isfinite(x) == (infinite < 0 || position < 35), "an infinite value in bfloat16", kernels.name);
      }
    }
  }
}

void check_transformer(const Kernels& kernels, const Shape& shape, Precision precision, KVPrecision kv_precision) {
  ThreadPool pool(2);
  Transformer model(shape, precision, kv_precision, kernels, pool);
  fill(model, shape, pool, [](const std::string&, std::size_t size) { return random_floats(size); });
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
  check_steps(kernels, model, pool, shape);
  check_hooks(kernels, model, shape);
  expect(model.cache().blocks_in_use() == 0, "blocks given back", kernels.name);
}

// Checks that rows have the same bits whether two teams of a thread or one of two compute them.
void check_teams(const Kernels& kernels, const Shape& shape, Precision precision, KVPrecision kv_precision) {
  constexpr int kChunk = 40;
  expect(Teams(shape.n_ctx, 2).count() == 2, "rows for two teams", kernels.name);
  ThreadPool pool(2);
  Transformer model(shape, precision, kv_precision, kernels, pool);
  fill(model, shape, pool, [](const std::string&, std::size_t size) { return random_floats(size); });
  std::vector<std::int32_t> tokens(shape.n_ctx);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = int(i * 7 % shape.n_vocab);
  std::vector<float> whole(tokens.size() * shape.n_vocab), chunks(whole.size());
  const int first = model.cache().create(), second = model.cache().create();
  model.forward({{first, tokens.data(), shape.n_ctx, shape.n_ctx}}, whole.data());
  for (int at = 0; at < shape.n_ctx; at += kChunk) {
    const int count = std::min(kChunk, shape.n_ctx - at);
    model.forward({{second, &tokens[at], count, count}}, chunks.data() + std::size_t(at) * shape.n_vocab);
  }
  expect(std::memcmp(chunks.data(), whole.data(), whole.size() * sizeof(float)) == 0, "teams", kernels.name);
}

// Checks that a product has the same bits whether one call takes all inputs or each call a part of them.
void check_parts(const Kernels& kernels, ThreadPool& pool, Precision precision, int m, int k, int n) {
  constexpr int kPart = 3 * kBlock;
  if (!kernels.takes_parts(precision)) return;
  const auto a = random_floats(std::size_t(m) * k), before = random_floats(std::size_t(m) * n);
  const TestMatrix matrix = packed_matrix(random_floats(std::size_t(k) * n), k, n, precision, pool);
  const PackedMatrix& packed = matrix.packed;
  const FloatArray bias = random_array(n, 1);
  auto whole = before, parts = before;
  multiply(kernels, a, packed, bias.data(), Epilogue::add, whole);

  const std::size_t step = std::size_t(rounded_up(m, kRowGroup)) * kTile;
  FloatArray sums(step * packed.tile_count());
  Array<std::byte> scratch(kScratchBytes);
  for (int first = 0; first < k; first += kPart) {
    const int count = std::min(kPart, k - first);
    std::vector<float> some;
    for (int r = 0; r < m; ++r) {
      const auto row = a.begin() + std::ptrdiff_t(r) * k + first;
      some.insert(some.end(), row, row + count);
    }
    const Array<std::byte> prepared = prepared_rows(kernels, some, m, count, precision);
    Product p{};
    p.precision = precision;
    p.prepared = prepared.data();
    p.b = packed.tiles + packed.offset_of(first);
    p.b_step = packed.tile_bytes();
    p.bias = bias.data();
    p.c = parts.data();
    p.ldc = std::size_t(n);
    p.scratch = scratch.data();
    p.m = m, p.k = count, p.n = n;
    p.epilogue = Epilogue::add;
    p.sums = {sums.data(), step, first == 0, first + count == k};
    kernels.product(p, 0, packed.tile_count());
  }
  expect(parts == whole, "a product in parts", kernels.name);
}

// Makes weights from integers, as tests/engines/formula.py does.
std::vector<float> formula_weights(const std::string& name, std::size_t size, int number) {
  const bool gain = name.find("ln_") != std::string::npos && name.ends_with(".weight");
  std::vector<float> values(size);
  for (std::size_t i = 0; i < size; ++i)
    values[i] = (float((std::uint32_t(i) * 2654435761u + std::uint32_t(number) * 40503u) >> 16) - 32768) / 131072 +
                (gain ? 1.0f : 0.0f);
  return values;
}

// While it lives, the thread rounds upwards and flushes subnormal numbers to zero, as a program around the core might.
class WrongMode {
#if defined(__SSE2__)
 public:
  WrongMode() : before_(_mm_getcsr()) { _mm_setcsr(0xdfc0); }
  ~WrongMode() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
 public:
  WrongMode() { asm volatile("msr fpcr, %0" : : "r"(std::uint64_t(5) << 22) : "memory"); }
  ~WrongMode() { asm volatile("msr fpcr, %0" : : "r"(std::uint64_t(0)) : "memory"); }
#endif
};

// Writes the formula model's logits after each of 300 tokens, and three texts of 30 tokens drawn in three ways.
void write_formula(const Kernels& kernels, Precision precision, const std::string& path) {
  const Shape shape{300, 320, 40, 2, 2};
  ThreadPool pool(2);
  Transformer model(shape, precision, is_integer(precision) ? KVPrecision::int8 : KVPrecision::float32, kernels, pool);
  int number = 0;
  fill(model, shape, pool,
       [&](const std::string& name, std::size_t size) { return formula_weights(name, size, number++); });
  std::vector<std::int32_t> tokens(300);
  for (int i = 0; i < 300; ++i) tokens[i] = (7 * i * i + 3 * i) % 300;
  std::ofstream file(path, std::ios::binary);
  std::vector<float> logits(300 * 300);
  const int sequence = model.cache().create();
  {
    const WrongMode mode;
    model.forward({{sequence, tokens.data(), 300, 300}}, logits.data());
  }
  file.write(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float));
  const SamplingParams ways[] = {{}, {.temperature = 0.7, .top_k = 40}, {.top_p = 0.9}};
  Sampler sampler(kernels);
  sampler.reserve(300);
  for (int text = 0; text < 3; ++text) {
    model.cache().truncate(sequence, 0);
    std::int32_t token = tokens[text];
    for (int i = 0; i < 30; ++i) {
      model.forward({{sequence, &token, 1, 1}}, logits.data());
      Draw draw;
      draw.params = ways[text];
      draw.seed = 7, draw.stream = text, draw.position = i;
      token = sampler.draw(logits.data(), 300, draw, {}).token;
      file.write(reinterpret_cast<const char*>(&token), sizeof token);
    }
  }
  expect(bool(file.flush()), "written", kernels.name);
}

template <typename Real>
void check_scores(const Kernels& kernels, const ScoreKernels<Real>& scores, int n) {
  const auto floats = random_floats(n);
  const std::vector<Real> x(floats.begin(), floats.end());
  std::vector<Real> bins((n + kGroup - 1) / kGroup * kGroupBins);
  const Real largest = scores.largest(x.data(), n, bins.data());
  expect(largest == *std::max_element(x.begin(), x.end()), "largest", kernels.name);
  expect(largest == *std::max_element(bins.begin(), bins.end()), "bins", kernels.name);
  for (const Real threshold : {largest, Real(1), Real(-0.5), -Real(INFINITY)}) {
    std::vector<std::int32_t> ids(n + 16), expected;
    ids.resize(scores.at_least(x.data(), n, bins.data(), threshold, ids.data()));
    for (int i = 0; i < n; ++i)
      if (x[i] >= threshold) expected.push_back(i);
    expect(ids == expected, "at_least", kernels.name);
  }
  std::vector<double> sums((n + kStride - 1) / kStride);
  const double sum = scores.sum_strides(x.data(), n, largest, 1.5, sums.data());
  double expected = 0, total = 0;
  for (const Real v : x) expected += std::exp((v - double(largest)) * 1.5);
  for (const double s : sums) total += s;
  expect(std::abs(sum - expected) <= 1e-12 * expected && sum == total, "sum_strides", kernels.name);
}

void check_sum_exp(const Kernels& kernels, int n) {
  auto x = random_floats(n);
  x[0] = -INFINITY;
  x[n - 1] = 7;
  double exact = 0;
  for (const float v : x) exact += std::exp(double(v) - 7);
  expect(std::abs(kernels.sum_exp(x.data(), n, 7) - exact) <= 1e-6 * exact, "sum_exp", kernels.name);
  x[n / 2] = NAN;
  expect(std::isnan(kernels.sum_exp(x.data(), n, 7)), "sum_exp of NaN", kernels.name);
}

// Checks every stage on scores of both kinds, in memory that ends with the last score.
void check_sampler(const Kernels& kernels) {
  for (int n : {1, 2, 7, 8, 9, 600, 2049, 5000}) {
    Sampler sampler(kernels);
    sampler.reserve(n);
    const auto logits = random_floats(n);
    const std::vector<std::int32_t> history = {0, n / 2, n - 1, 0};
    const double bias = 0.25;
    for (double top_p : {0.0, 0.3, 0.9, 1.0})
      for (std::int64_t top_k : {0, 1, 5, 300, 100000})
        for (std::uint32_t position = 0; position < 24; ++position) {
          Draw draw;
          draw.params = {
              .temperature = position % 5 * 0.4, .top_k = top_k, .top_p = top_p, .min_p = position % 3 * 0.01};
          draw.position = position;
          if (position % 2) {
            draw.params.repetition_penalty = 1.2;
            draw.history = {history.data(), 2};
            draw.recent = {history.data() + 2, 2};
            draw.bias_ids = history.data() + 1;
            draw.bias_values = &bias;
            draw.bias_size = 1;
          }
          const int size = std::min(n, position % 4 == 0 ? 300 : 3);
          std::vector<std::int32_t> ids(size);
          std::vector<float> logprobs(size);
          const DrawResult result = sampler.draw(logits.data(), n, draw, {size, ids.data(), logprobs.data()});
          expect(result.status == DrawStatus::ok && result.token >= 0 && result.token < n, "draw", kernels.name);
          expect(std::is_sorted(logprobs.rbegin(), logprobs.rend()), "likeliest", kernels.name);
          expect(logits[ids[0]] == *std::max_element(logits.begin(), logits.end()), "the likeliest", kernels.name);
        }
  }
}

}  // namespace

int main(int count, char** arguments) {
  check_kv_cache();
  ThreadPool pool(2);
  for (const Kernels* available : available_kernels()) {
    const Kernels* kernels = &choose_kernels(available->name);
    for (const Precision precision : kPrecisions) {
      for (int m = 1; m <= 35; ++m) check_product(*kernels, pool, precision, m, 19, 45, Epilogue::store);
      for (Epilogue epilogue : {Epilogue::store, Epilogue::gelu, Epilogue::add})
        for (int m : {1, 5, 40}) check_product(*kernels, pool, precision, m, 800, 33, epilogue);
      // one block of k, a part of a tile, a part and a block more of many; more rows than a cache holds; the most rows
      for (int m : {16, 32, 41})
        for (int k : {256, 600}) check_product(*kernels, pool, precision, m, k, 33, Epilogue::store, false);
      check_product(*kernels, pool, precision, 32, 3300, 33, Epilogue::add);
      check_product(*kernels, pool, precision, 140, 3300, 1, Epilogue::store, false);
      check_product(*kernels, pool, precision, kMaxRows, 19, 33, Epilogue::store);
      for (int m : {65, 97}) check_parts(*kernels, pool, precision, m, 1545, 70);
      check_transformer(*kernels, {50, 70, 60, 5, 2}, precision, KVPrecision::float32);
      check_transformer(*kernels, {33, 40, 8, 8, 1}, precision, KVPrecision::float16);
      check_transformer(*kernels, {40, 70, 66, 2, 2}, precision, KVPrecision::int8);
      check_transformer(*kernels, {40, 70, 66, 2, 2}, precision, KVPrecision::bfloat16);
      // more inputs than a part of k, and MLPs in several parts
      if (!kernels->emulates_fma || is_integer(precision))
        check_teams(*kernels, {20, 128, 784, 4, 1, 800}, precision, KVPrecision::float32);
      check_teams(*kernels, {20, 190, 66, 2, 2, 1545}, precision, KVPrecision::bfloat16);
      check_teams(*kernels, {20, 190, 36, 3, 2, 900, Activation::relu}, precision, KVPrecision::int8);
      // widths around a tile and below a vector, and every switch
      check_transformer(*kernels, {33, 40, 60, 5, 2, 3, Activation::gelu, 1e-6f, false, true, false}, precision,
                        KVPrecision::float32);
      check_transformer(*kernels, {33, 40, 20, 5, 1, 700, Activation::silu, 1e-3f, true, true, false}, precision,
                        KVPrecision::float16);
    }
    for (const bool transposed : {false, true})
      for (const bool add : {false, true}) {
        for (int m : {1, 2, 13, 40}) check_matmul(*kernels, m, 19, 45, transposed, add);
        check_matmul(*kernels, 14, 1540, 40, transposed, add);  // more than a part of k, of columns, of rows
        check_matmul(*kernels, 14, 3, 600, transposed, add);
        check_matmul(*kernels, 1600, 3, 5, transposed, add);
      }
    for (const AttentionShape& shape : {AttentionShape{1, 1, 1, 1}, {2, 99, 3, 33}, {1, 200, 1, 64}})
      check_attention(*kernels, shape);
    if (const TileKernels* tiles = tile_kernels(*kernels)) check_tiles(*kernels, *tiles);
    check_packed_attention(*kernels);
    check_stored_bfloat16(*kernels);
    for (const int head_dim : {5, 33, 64}) check_stored_slots(*kernels, head_dim);
    for (int n : {1, 3, 4, 15, 16, 33, 64, 300}) {
      for (int together : {1, 4}) check_to_int8(*kernels, n, together);
      check_four_to_int8(*kernels, n);
    }
    if (kernels->packed_attention_bytes(KVPrecision::bfloat16, 64) > 0)
      for (int n : {1, 2, 15, 16, 17, 31, 32, 33, 64, 300})
        for (int together : {1, 2}) check_pack_bfloat16(*kernels, n, together);
    check_halves(*kernels);
    check_activations(*kernels);
    check_gelu_gradient(*kernels);
    for (int n : {1, 3, 16, 60, 768}) check_layer_norm(*kernels, n);
    for (int rows : {1, 70, 200}) check_layer_norm_gradient(*kernels, rows, 50);
    check_exp(*kernels);
    for (int n : {1, 2, 31, 33, 511, 600, 2047, 2048, 2081, 5000}) {
      check_scores(*kernels, kernels->logits, n);
      check_scores(*kernels, kernels->scores, n);
      if (n > 1) check_sum_exp(*kernels, n);
    }
    check_sampler(*kernels);
    if (count > 1)
      for (const auto& [precision, name] : kExactPrecisions)
        write_formula(*kernels, precision, std::string(arguments[1]) + "/" + kernels->name + "." + name);
    std::printf("ok %s\n", kernels->name);
  }
}
