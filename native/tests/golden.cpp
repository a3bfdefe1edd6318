// Compares the core with the original's numbers, without Python: for other CPUs and systems, under an emulator.
//
//   golden FOLDER
//
// tests/engines/golden_folder.py writes FOLDER: `model.txt` (five numbers of the shape and a prompt's length, then the
// names of all tensors), each tensor as raw float32 in NAME.f32, and what to expect. For every set of kernels that this
// CPU runs, the program compares the original's logits (within 1e-4) and its likeliest tokens in float32, and the exact
// bits of another processor's logits in float32, int8 and int4, each with its default KV cache. Prints a line per set
// of kernels; exits with 1 at the first failure.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "../instruction_set.h"
#include "../transformer.h"

using namespace gpt2lab;

namespace {

constexpr float kTolerance = 1e-4f;
constexpr std::pair<Precision, const char*> kExactPrecisions[] = {{Precision::float32, "float32"},
                                                                  {Precision::int8, "int8"},
                                                                  {Precision::int4, "int4"}};

[[noreturn]] void fail(const std::string& what) {
  std::printf("FAILED: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
std::vector<T> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.empty()) fail(path + " is missing or empty");
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

struct Golden {
  std::string folder;
  Shape shape{};
  std::vector<std::string> names;
  std::vector<std::int32_t> tokens, greedy;  // a text, and the likeliest continuation of its own first tokens
  std::vector<float> last;                   // the original's logits after `tokens`
  std::size_t prompt = 0;                    // how many of `greedy` were given

  explicit Golden(const std::string& path) : folder(path + "/") {
    std::ifstream model(folder + "model.txt");
    model >> shape.n_vocab >> shape.n_ctx >> shape.n_embd >> shape.n_head >> shape.n_layer >> prompt;
    if (!model) fail(folder + "model.txt has no shape");
    shape.n_inner = 4 * shape.n_embd;
    for (std::string name; model >> name;) names.push_back(name);
    tokens = read<std::int32_t>(folder + "tokens.i32");
    greedy = read<std::int32_t>(folder + "greedy.i32");
    last = read<float>(folder + "last.f32");
  }
};

struct Model {
  ThreadPool pool{2};
  Transformer transformer;
  const Golden& golden;
  std::string what;

  Model(const Golden& given, const Kernels& kernels, Precision precision, const char* name)
      : transformer(given.shape, precision, is_integer(precision) ? KVPrecision::int8 : KVPrecision::float32, kernels,
                    pool),
        golden(given), what(std::string(kernels.name) + ", " + name) {
    for (const std::string& tensor_name : golden.names) {
      const auto values = read<float>(golden.folder + tensor_name + ".f32");
      Weights::Tensor* tensor = transformer.weights.find(tensor_name);
      if (!tensor || !transformer.weights.set(*tensor, values.data(), pool)) fail(what + ": " + tensor_name);
    }
    if (!transformer.weights.complete()) fail(what + ": tensors are missing");
  }

  // Returns the logits after each of the tokens from `first` on.
  std::vector<float> logits(int sequence, const std::vector<std::int32_t>& tokens, std::size_t first = 0) {
    const int count = int(tokens.size() - first);
    std::vector<float> found(std::size_t(count) * golden.shape.n_vocab);
    transformer.forward({{sequence, tokens.data() + first, count, count}}, found.data());
    return found;
  }
};

void check_original(Model& model) {
  const Golden& golden = model.golden;
  const std::size_t n = golden.shape.n_vocab;
  const int sequence = model.transformer.cache().create();
  const auto found = model.logits(sequence, golden.tokens);
  if (golden.last.size() != n) fail("last.f32 has another number of logits");
  for (std::size_t i = 0; i < n; ++i) {
    const float off = std::abs(found[found.size() - n + i] - golden.last[i]);
    if (!(off <= kTolerance)) fail(model.what + ": a logit is off by " + std::to_string(off));  // or NaN
  }
  model.transformer.cache().truncate(sequence, 0);
  std::vector<std::int32_t> text(golden.greedy.begin(), golden.greedy.begin() + golden.prompt);
  std::size_t known = 0;
  while (text.size() < golden.greedy.size()) {
    const auto rows = model.logits(sequence, text, std::exchange(known, text.size()));
    text.push_back(std::int32_t(std::max_element(rows.end() - n, rows.end()) - (rows.end() - n)));
  }
  if (text != golden.greedy) fail(model.what + ": other tokens than the original's");
  model.transformer.cache().free(sequence);
}

void check_bits(Model& model, const char* precision) {
  const auto expected = read<float>(model.golden.folder + precision + ".bits");
  const int sequence = model.transformer.cache().create();
  const auto found = model.logits(sequence, model.golden.tokens);
  if (found.size() != expected.size() || std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) != 0)
    fail(model.what + ": other bits than another processor's");
  model.transformer.cache().free(sequence);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) fail("usage: golden FOLDER");
  const Golden golden(arguments[1]);
  for (const Kernels* available : available_kernels()) {
    const Kernels& kernels = choose_kernels(available->name);
    for (const auto& [precision, name] : kExactPrecisions) {
      Model model(golden, kernels, precision, name);
      if (precision == Precision::float32) check_original(model);
      check_bits(model, name);
    }
    std::printf("ok %s\n", kernels.name);
  }
}
