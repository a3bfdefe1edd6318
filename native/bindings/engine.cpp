// The module's class Engine: the transformer and the sampler on Python's arrays and lists.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

#include "arguments.h"
#include "draw_arguments.h"
#include "exit_gate.h"
#include "instruction_set.h"
#include "stepper.h"
#include "transformer.h"

namespace gpt2lab {
namespace {

using Tensor = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
template <typename T>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using Activations = nb::ndarray<nb::numpy, float, nb::ndim<3>>;

Shape checked_shape(const Shape& s) {
  constexpr int kMost = 1 << 24;  // a size times a small number fits an int
  if (s.n_embd > kMost || s.n_inner > 4 * kMost || s.n_ctx > kMost || s.n_vocab > 1 << 30)
    throw std::invalid_argument("model shape too large");
  if (s.n_vocab < 1 || s.n_ctx < 1 || s.n_embd < 1 || s.n_head < 1 || s.n_layer < 1 || s.n_inner < 1 ||
      s.n_embd % s.n_head != 0)
    throw std::invalid_argument("impossible model shape");
  return s;
}

// Returns the width of the MLP's inner layer in the original; checked_shape() refuses an n_embd that is too large.
int default_inner(int n_embd) { return n_embd < 1 << 24 ? 4 * n_embd : n_embd; }

Activation checked_activation(const std::string& name) {
  if (name == "gelu_new") return Activation::gelu_new;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  if (name == "silu") return Activation::silu;
  throw std::invalid_argument("no activation '" + name + "'");
}

Precision checked_precision(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "int8") return Precision::int8;
  if (name == "int4") return Precision::int4;
  throw std::invalid_argument("no precision '" + name + "'");
}

KVPrecision checked_kv_precision(const std::string& name) {
  if (name == "float32") return KVPrecision::float32;
  if (name == "float16") return KVPrecision::float16;
  if (name == "int8") return KVPrecision::int8;
  throw std::invalid_argument("no precision '" + name + "' for keys and values");
}

// A model with its KV cache, threads and sampler. Several Python threads may call it: calls take turns.
class Engine {
 public:
  Engine(int n_vocab, int n_ctx, int n_embd, int n_head, int n_layer, int threads, const std::string& instruction_set,
         const std::string& precision, const std::string& kv_precision, std::optional<int> n_inner,
         const std::string& activation, double layer_norm_epsilon, bool scale_attn_weights,
         bool scale_attn_by_inverse_layer_idx, bool tie_word_embeddings)
      : shape_(checked_shape({n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner.value_or(default_inner(n_embd)),
                              checked_activation(activation), float(layer_norm_epsilon), scale_attn_weights,
                              scale_attn_by_inverse_layer_idx, tie_word_embeddings})),
        kernels_(choose_kernels(instruction_set)), pool_(checked_threads(threads)),
        model_(std::make_unique<Transformer>(shape_, checked_precision(precision), checked_kv_precision(kv_precision),
                                             kernels_, pool_)),
        stepper_(*model_, kernels_, pool_, n_vocab) {}

  void set_tensor(const std::string& name, const Tensor& values) {
    const Turn turn = take_turn();
    Weights::Tensor* tensor = model_->weights.find(name);
    if (!tensor) throw std::invalid_argument("no tensor '" + name + "' in a model of this shape");
    const bool matrix = tensor->rows > 0;
    if (values.ndim() != (matrix ? 2u : 1u) || (matrix && values.shape(0) != std::size_t(tensor->rows)) ||
        values.shape(values.ndim() - 1) != std::size_t(tensor->columns))
      throw std::invalid_argument(name + " must be [" + (matrix ? std::to_string(tensor->rows) + ", " : "") +
                                  std::to_string(tensor->columns) + "]");
    bool finite;
    {
      nb::gil_scoped_release release;
      finite = model_->weights.set(*tensor, values.data(), pool_);
    }
    if (!finite) throw std::invalid_argument(name + " has values that are not finite in this precision");
  }

  // Packs a matrix that is already rounded: q [n_out, n_in], scales [n_out, n_blocks], factors [n_out, n_groups].
  void set_integers(const std::string& name, const Array2<std::int8_t>& q, const Array2<float>& scales,
                    const std::optional<Array2<std::int8_t>>& factors) {
    const Turn turn = take_turn();
    Weights::Tensor* tensor = model_->weights.find(name);
    if (!tensor || !tensor->matrix.tiles)
      throw std::invalid_argument("no matrix '" + name + "' in a model of this shape");
    const PackedMatrix& m = tensor->matrix;
    if (!is_integer(m.precision) || factors.has_value() != (m.precision == Precision::int4))
      throw std::invalid_argument(name + " is not held in this precision");
    const auto fits = [&](const auto& array, int columns) {
      return array.shape(0) == std::size_t(m.n) && array.shape(1) == std::size_t(columns);
    };
    if (!fits(q, m.k) || !fits(scales, block_count(m.k)) ||
        (factors && !fits(*factors, (m.k + kGroupInputs - 1) / kGroupInputs)))
      throw std::invalid_argument(name + " must be [" + std::to_string(m.n) + ", " + std::to_string(m.k) + "]");
    bool valid;
    {
      nb::gil_scoped_release release;
      valid = model_->weights.set(*tensor, {q.data(), scales.data(), factors ? factors->data() : nullptr}, pool_);
    }
    if (!valid) throw std::invalid_argument(name + " has numbers that are out of range");
  }

  // Returns the bytes of all weights. A caller that writes to them must make sure that no thread computes meanwhile.
  Result<std::uint8_t> packed() {
    Array<std::byte>& memory = model_->weights.memory();
    return Result<std::uint8_t>(memory.data(), {memory.size()}, nb::find(this));
  }

  std::size_t packed_size() { return model_->weights.memory().size(); }

  void mark_loaded() {
    const Turn turn = take_turn();
    model_->weights.mark_all_set();
  }

  int new_sequence() { return take_turn()->create(); }
  int fork_sequence(int sequence) {
    const Turn turn = take_turn();
    const int fork = turn->fork(sequence);
    model_->hooks().copy(sequence, fork);
    return fork;
  }
  void free_sequence(int sequence) {
    const Turn turn = take_turn();
    turn->free(sequence);
    model_->hooks().erase(sequence);
  }
  int sequence_length(int sequence) { return take_turn()->length(sequence); }
  void truncate_sequence(int sequence, int length) { take_turn()->truncate(sequence, length); }

  // Returns a copy of the keys and values of a sequence, [n_layer, 2, n_head, tokens, head_dim] with keys first. In
  // int8 the last axis has four bytes more, a row's scale in float32.
  nb::ndarray<nb::numpy> read_sequence(int sequence) {
    std::unique_ptr<std::byte[]> numbers;
    std::size_t tokens;
    {
      const Turn turn = take_turn();
      nb::gil_scoped_release release;
      KVCache& cache = model_->cache();
      tokens = cache.length(sequence);
      numbers.reset(new std::byte[sequence_bytes(tokens)]);
      cache.read(sequence, numbers.get());
    }
    const std::size_t shape[] = {std::size_t(shape_.n_layer), 2, std::size_t(shape_.n_head), tokens,
                                 std::size_t(row_numbers())};
    std::byte* data = numbers.get();
    nb::capsule owner(numbers.release(), [](void* p) noexcept { delete[] static_cast<std::byte*>(p); });
    return nb::ndarray<nb::numpy>(data, 5, shape, owner, nullptr, kv_type());
  }

  // Returns a new sequence with keys and values that read_sequence() returned.
  int write_sequence(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& values) {
    const std::int64_t shape[] = {shape_.n_layer, 2, shape_.n_head, -1, row_numbers()};
    bool fits = values.ndim() == 5 && values.dtype() == kv_type();
    for (int i = 0; i < 5 && fits; ++i) fits = shape[i] < 0 || std::int64_t(values.shape(i)) == shape[i];
    if (!fits) throw std::invalid_argument("keys and values of another shape or type");
    if (values.shape(3) > std::size_t(shape_.n_ctx)) throw std::overflow_error("more tokens than the context holds");
    const int tokens = int(values.shape(3));
    const auto* numbers = static_cast<const std::byte*>(values.data());
    const Turn turn = take_turn();
    nb::gil_scoped_release release;
    KVCache& cache = model_->cache();
    const int sequence = cache.create();
    try {
      cache.extend(sequence, tokens);
    } catch (...) {
      cache.free(sequence);
      throw;
    }
    cache.write(sequence, numbers);
    return sequence;
  }

  // Runs a forward pass and returns logits. tokens: the tokens of all feeds, concatenated; counts: the number of tokens
  // per sequence; outputs: logits of 0 the last, 1 all, 2 no tokens.
  Logits forward(const Array1<std::int32_t>& sequences, const Array1<std::int32_t>& tokens,
                 const Array1<std::int32_t>& counts, int outputs) {
    if (outputs < 0 || outputs > 2) throw std::invalid_argument("outputs must be 0, 1 or 2");
    const std::size_t rows = outputs == 0 ? sequences.shape(0) : outputs == 1 ? tokens.shape(0) : 0;
    // The allocator reuses warm memory: fresh pages would cost more than a small model's step.
    std::unique_ptr<float[]> logits(new float[rows * shape_.n_vocab]);
    float* data = logits.get();
    {
      const Turn turn = take_turn();
      std::vector<Feed> feeds = checked_feeds(span_of(sequences), span_of(tokens), span_of(counts));
      for (Feed& feed : feeds) feed.outputs = outputs == 0 ? 1 : outputs == 1 ? feed.count : 0;
      nb::gil_scoped_release release;
      if (!feeds.empty()) model_->forward(feeds, data);
    }
    nb::capsule owner(logits.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Logits(data, {rows, std::size_t(shape_.n_vocab)}, owner);
  }

  // A change in the layout of Edit: site, layer, add, first column, first position, number of positions (0: all from
  // the first on), values [positions, columns].
  using Change = std::tuple<int, int, bool, int, int, int, Array2<float>>;

  // Replaces the edits of tokens that are fed to a sequence from now on; its forks inherit them.
  void edit_sequence(int sequence, const std::vector<Change>& changes) {
    Edits edits;
    for (const auto& [site, layer, add, column, first, count, values] : changes) {
      const std::size_t rows = values.shape(0), width = values.shape(1);
      if (site < 0 || site >= kSites || layer < 0 || layer > shape_.n_layer - (site != int(Site::resid_pre)) ||
          column < 0 || width < 1 || width > std::size_t(shape_.n_embd - std::min(column, shape_.n_embd)) ||
          first < 0 || first > shape_.n_ctx || count < 0 || count > shape_.n_ctx ||
          rows != std::size_t(std::max(1, count)))
        throw std::invalid_argument("an edit that does not fit the model");
      edits.push_back({Site(site), layer, add, column, int(width), first, count,
                       std::vector<float>(values.data(), values.data() + values.size())});
    }
    const Turn turn = take_turn();
    turn->length(sequence);  // throws unless there is such a sequence
    model_->hooks().set(sequence, std::move(edits));
  }

  // Feeds `tokens` to a sequence and returns the activations of each at `sites`, from `first_layer` on:
  // [layers, tokens, n_embd] each, the layers of the residual stream one more than the others.
  std::vector<Activations> record(int sequence, const Array1<std::int32_t>& tokens, const std::vector<int>& sites,
                                  int first_layer) {
    if (first_layer < 0 || first_layer > shape_.n_layer) throw std::invalid_argument("no such layer");
    Recording recording{{}, first_layer, tokens.shape(0)};
    std::vector<std::unique_ptr<float[]>> memory;
    std::vector<std::size_t> layers;
    for (const int site : sites) {
      if (site < 0 || site >= kSites) throw std::invalid_argument("no such site");
      layers.push_back(std::size_t(shape_.n_layer - first_layer + (site == int(Site::resid_pre))));
      memory.emplace_back(new float[layers.back() * recording.rows * shape_.n_embd]);
      recording.sites[site] = memory.back().get();
    }
    const std::int32_t count = std::int32_t(tokens.shape(0));
    {
      const Turn turn = take_turn();
      const std::vector<Feed> feeds = checked_feeds({&sequence, 1}, span_of(tokens), {&count, 1});
      nb::gil_scoped_release release;
      model_->forward(feeds, nullptr, &recording);
    }
    std::vector<Activations> results;
    for (std::size_t i = 0; i < memory.size(); ++i)
      results.push_back(
          owned<Activations>(std::move(memory[i]), {layers[i], recording.rows, std::size_t(shape_.n_embd)}));
    return results;
  }

  // Returns the logits of rows at the end of the residual stream.
  Logits unembed(const Array2<float>& x) {
    return products_of(x, [&](float* out) { model_->unembed(x.data(), int(x.shape(0)), out); });
  }

  // Returns the products of rows with every token's embedding.
  Logits compare(const Array2<float>& x) {
    return products_of(x, [&](float* out) { model_->compare(x.data(), int(x.shape(0)), out); });
  }

  Result<float> embedding_lengths() {
    return vector_of(shape_.n_vocab, [&](float* out) { model_->embedding_lengths(out); });
  }

  // Returns a token's row of the embedding, or of the output matrix.
  Result<float> token_row(int token, bool output) {
    check_ids(&token, 1);
    return vector_of(shape_.n_embd,
                     [&](float* out) { (output ? model_->weights.head() : model_->weights.wte()).column(token, out); });
  }

  Result<float> pull_back(int layer, const Array1<float>& direction) {
    if (layer < 0 || layer >= shape_.n_layer) throw std::invalid_argument("no such layer");
    if (direction.shape(0) != std::size_t(shape_.n_embd)) throw std::invalid_argument("a direction has n_embd numbers");
    return vector_of(shape_.n_embd, [&](float* out) { model_->pull_back(layer, direction.data(), out); });
  }

  // Draws one token per row of logits. params: the numbers of SamplingParams per row. The history and biases of row i
  // lie at offsets[i] … offsets[i + 1].
  nb::tuple sample(const Array2<float>& logits, const Array2<double>& params, const Array2<std::uint64_t>& streams,
                   const Array1<std::int32_t>& history, const Array1<std::int64_t>& history_offsets,
                   const Array1<std::int32_t>& bias_ids, const Array1<double>& bias_values,
                   const Array1<std::int64_t>& bias_offsets) {
    const std::size_t rows = logits.shape(0), n_vocab = logits.shape(1);
    if (n_vocab != std::size_t(shape_.n_vocab)) throw DrawError("logits do not fit the vocabulary");
    const DrawArguments arguments{span_of(params),          span_of(streams),  span_of(history),
                                  span_of(history_offsets), span_of(bias_ids), span_of(bias_values),
                                  span_of(bias_offsets)};
    const std::vector<Draw> draws = checked_draws(arguments, rows, shape_.n_vocab);
    std::vector<DrawResult> results;
    {
      const Turn turn = take_turn();
      nb::gil_scoped_release release;
      results = stepper_.draw(logits.data(), draws);
    }
    for (std::size_t row = 0; row < rows; ++row) raise_if_failed(results[row].status, row);
    return nb::make_tuple(array_of<std::int32_t>(results, &DrawResult::token),
                          array_of<float>(results, &DrawResult::logprob));
  }

  template <typename T>
  using List = std::vector<T>;
  using StepResult = std::tuple<List<std::int32_t>, List<float>, List<int>, List<std::int32_t>, List<float>>;

  // Feeds counts[i] of `tokens` to sequences[i]. Draws after each of the last draw_counts[i] tokens, as long as the
  // drawn token is the one that was fed next, with the top[i] likeliest tokens for each draw. streams: seed, stream and
  // first position of each; params, histories and biases are as in `sample`. Returns the ids and logprobs of all draws,
  // the number of draws per sequence, and the ids and logprobs of the likeliest tokens. If a draw fails, the tokens fed
  // are removed again. Arguments that change with every step, and results, are lists: for so few numbers they are
  // cheaper than arrays.
  StepResult step(const List<std::int32_t>& sequences, const List<std::int32_t>& tokens,
                  const List<std::int32_t>& counts, const List<std::int32_t>& draw_counts, const Array2<double>& params,
                  const List<std::uint64_t>& streams, const List<std::int32_t>& history,
                  const List<std::int64_t>& history_offsets, const Array1<std::int32_t>& bias_ids,
                  const Array1<double>& bias_values, const Array1<std::int64_t>& bias_offsets,
                  const List<std::int32_t>& top) {
    std::optional<Chains> run;
    bool good;
    {
      std::optional<Turn> turn;  // outlives `release`: the interpreter must not end before this thread has its GIL back
      nb::gil_scoped_release release;
      turn.emplace(*this);
      const DrawArguments arguments{span_of(params),      streams,           history,
                                    history_offsets,      span_of(bias_ids), span_of(bias_values),
                                    span_of(bias_offsets)};
      const std::vector<Draw> draws = checked_draws(arguments, sequences.size(), shape_.n_vocab);
      std::vector<Feed> feeds = checked_feeds(sequences, tokens, counts);
      run.emplace(draws, feeds, draw_counts, top, shape_.n_vocab);
      good = stepper_.step(feeds, run->chains);
    }
    for (std::size_t i = 0; i < run->chains.size() && !good; ++i)
      if (const Chain& chain = run->chains[i]; chain.drawn > 0)
        raise_if_failed(chain.results[chain.drawn - 1].status, i);
    return lists_of(run->chains);
  }

  void start_meters() { take_turn(), model_->start_meters(); }

  // Returns the seconds of each thread in each part since start_meters().
  std::vector<std::vector<double>> stop_meters() {
    const Turn turn = take_turn();
    std::vector<std::vector<double>> seconds;
    for (const Meter& meter : model_->stop_meters()) {
      std::vector<double>& parts = seconds.emplace_back();
      for (int part = 0; part < kParts; ++part) parts.push_back(meter.seconds(part));
    }
    return seconds;
  }

  int threads() const { return pool_.size(); }
  std::string instruction_set() const { return kernels_.name; }
  bool emulates_fma() const { return kernels_.emulates_fma; }
  int blocks_in_use() { return take_turn()->blocks_in_use(); }
  std::size_t kv_bytes_held() { return take_turn()->bytes_held(); }
  void trim_kv_cache() { take_turn()->trim(); }

  // To be called before a fork, and after it in parent and child, by the thread that forks. So no other thread is in
  // the middle of a change when the memory is copied, and none that the child lacks holds the engine.
  void before_fork() {
    nb::gil_scoped_release release;
    mutex_.lock();
  }
  void after_fork() { mutex_.unlock(); }

  std::size_t block_bytes() { return model_->cache().block_bytes(); }

 private:
  // Exclusive use of the engine. While you hold one, make no Python object: that may run the garbage collector, and
  // with it a finaliser that frees a sequence.
  class Turn {
   public:
    explicit Turn(Engine& engine) : engine_(engine) {
      exit_gate.enter();
      engine_.mutex_.lock();
    }
    ~Turn() {
      engine_.mutex_.unlock();
      exit_gate.leave();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    KVCache* operator->() const { return &engine_.model_->cache(); }

   private:
    Engine& engine_;
  };

  // Waits without the GIL; otherwise a thread that holds the engine and needs the GIL again would wait for this one.
  Turn take_turn() {
    nb::gil_scoped_release release;
    return Turn(*this);
  }

  template <typename T>
  static T owned(std::unique_ptr<float[]> memory, std::initializer_list<std::size_t> shape) {
    float* data = memory.get();
    nb::capsule owner(memory.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return T(data, shape, owner);
  }

  template <typename F>
  Logits products_of(const Array2<float>& x, F&& compute) {
    if (x.shape(1) != std::size_t(shape_.n_embd)) throw std::invalid_argument("rows must have n_embd numbers");
    if (x.shape(0) > 1 << 20) throw std::invalid_argument("too many rows");
    const std::size_t n_vocab = shape_.n_vocab;
    std::unique_ptr<float[]> products(new float[x.shape(0) * n_vocab]);
    compute_alone([&] { compute(products.get()); });
    return owned<Logits>(std::move(products), {x.shape(0), n_vocab});
  }

  template <typename F>
  Result<float> vector_of(int size, F&& compute) {
    std::unique_ptr<float[]> values(new float[size]);
    compute_alone([&] { compute(values.get()); });
    return owned<Result<float>>(std::move(values), {std::size_t(size)});
  }

  // Runs a computation on complete weights that nobody else uses meanwhile.
  template <typename F>
  void compute_alone(F&& compute) {
    const Turn turn = take_turn();
    if (!model_->weights.complete()) throw std::invalid_argument("the engine lacks some of its weights");
    nb::gil_scoped_release release;
    compute();
  }

  nb::dlpack::dtype kv_type() {
    switch (model_->cache().precision()) {
      case KVPrecision::float32: return nb::dtype<float>();
      case KVPrecision::float16: return {2, 16, 1};
      case KVPrecision::int8: return nb::dtype<std::int8_t>();
    }
    return {};  // never reached
  }

  // Returns the numbers in a row of keys or values, as read_sequence() returns them.
  std::int64_t row_numbers() { return std::int64_t(model_->cache().row_bytes() * 8 / kv_type().bits); }

  std::size_t sequence_bytes(std::size_t tokens) {
    return tokens * 2 * shape_.n_layer * shape_.n_head * model_->cache().row_bytes();
  }

  template <typename T>
  static Result<T> array_of(const std::vector<DrawResult>& results, T DrawResult::* field) {
    auto* values = new T[results.size()];
    nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    for (std::size_t i = 0; i < results.size(); ++i) values[i] = results[i].*field;
    return Result<T>(values, {results.size()}, owner);
  }

  static StepResult lists_of(const std::vector<Chain>& chains) {
    StepResult result;
    auto& [ids, logprobs, drawn_counts, top_ids, top_logprobs] = result;
    for (const Chain& chain : chains) {
      drawn_counts.push_back(chain.drawn);
      for (int i = 0; i < chain.drawn; ++i) {
        ids.push_back(chain.results[i].token);
        logprobs.push_back(chain.results[i].logprob);
      }
      const std::size_t likeliest = std::size_t(chain.drawn) * chain.top.size;
      top_ids.insert(top_ids.end(), chain.top.ids, chain.top.ids + likeliest);
      top_logprobs.insert(top_logprobs.end(), chain.top.logprobs, chain.top.logprobs + likeliest);
    }
    return result;
  }

  std::vector<Feed> checked_feeds(std::span<const std::int32_t> sequences, std::span<const std::int32_t> tokens,
                                  std::span<const std::int32_t> counts) {
    if (sequences.size() != counts.size()) throw std::invalid_argument("as many counts as sequences are needed");
    if (!model_->weights.complete()) throw std::invalid_argument("the engine lacks some of its weights");
    std::vector<Feed> feeds;
    std::unordered_set<int> seen;
    std::size_t next = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const int sequence = sequences[i], count = counts[i];
      const int length = model_->cache().length(sequence);
      if (!seen.insert(sequence).second)
        throw std::invalid_argument("sequence " + std::to_string(sequence) + " is fed twice in one call");
      if (count < 1) throw std::invalid_argument("each sequence needs at least one token");
      if (std::size_t(count) > tokens.size() - next) throw std::invalid_argument("fewer tokens than counts add up to");
      if (count > shape_.n_ctx - length)
        throw std::overflow_error(std::to_string(length) + " tokens and " + std::to_string(count) +
                                  " more are over the context of " + std::to_string(shape_.n_ctx));
      feeds.push_back({sequence, tokens.data() + next, count, 0});
      next += count;
    }
    if (next != tokens.size()) throw std::invalid_argument("more tokens than the counts add up to");
    check_ids(tokens.data(), next);
    return feeds;
  }

  void check_ids(const std::int32_t* ids, std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i)
      if (ids[i] < 0 || ids[i] >= shape_.n_vocab)
        throw std::out_of_range("token id " + std::to_string(ids[i]) + " is not in the vocabulary of " +
                                std::to_string(shape_.n_vocab));
  }

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::unique_ptr<Transformer> model_;
  Stepper stepper_;
  std::mutex mutex_;
};

}  // namespace

void bind_engine(nb::module_& m) {
  nb::exception<DrawError>(m, "DrawError", PyExc_ValueError);
  nb::list names;
  for (const char* name : kPartNames) names.append(name);
  m.attr("PARTS") = nb::tuple(names);
  nb::class_<Engine>(m, "Engine", nb::is_weak_referenceable())
      .def(nb::init<int, int, int, int, int, int, const std::string&, const std::string&, const std::string&,
                    std::optional<int>, const std::string&, double, bool, bool, bool>(),
           nb::arg("n_vocab"), nb::arg("n_ctx"), nb::arg("n_embd"), nb::arg("n_head"), nb::arg("n_layer"),
           nb::arg("threads"), nb::arg("instruction_set"), nb::arg("precision"), nb::arg("kv_precision"),
           nb::arg("n_inner") = nb::none(), nb::arg("activation") = "gelu_new", nb::arg("layer_norm_epsilon") = 1e-5,
           nb::arg("scale_attn_weights") = true, nb::arg("scale_attn_by_inverse_layer_idx") = false,
           nb::arg("tie_word_embeddings") = true)
      .def("set_tensor", &Engine::set_tensor)
      .def("set_integers", &Engine::set_integers, nb::arg("name"), nb::arg("q"), nb::arg("scales"),
           nb::arg("factors").none())
      .def("mark_loaded", &Engine::mark_loaded)
      .def_prop_ro("packed", &Engine::packed)
      .def_prop_ro("packed_size", &Engine::packed_size)
      .def("new_sequence", &Engine::new_sequence)
      .def("fork_sequence", &Engine::fork_sequence)
      .def("free_sequence", &Engine::free_sequence)
      .def("sequence_length", &Engine::sequence_length)
      .def("truncate_sequence", &Engine::truncate_sequence)
      .def("read_sequence", &Engine::read_sequence)
      .def("write_sequence", &Engine::write_sequence)
      .def("edit_sequence", &Engine::edit_sequence)
      .def("record", &Engine::record)
      .def("unembed", &Engine::unembed)
      .def("compare", &Engine::compare)
      .def("embedding_lengths", &Engine::embedding_lengths)
      .def("token_row", &Engine::token_row)
      .def("pull_back", &Engine::pull_back)
      .def("forward", &Engine::forward)
      .def("sample", &Engine::sample)
      .def("step", &Engine::step)
      .def_prop_ro("threads", &Engine::threads)
      .def_prop_ro("instruction_set", &Engine::instruction_set)
      .def_prop_ro("emulates_fma", &Engine::emulates_fma)
      .def_prop_ro("blocks_in_use", &Engine::blocks_in_use)
      .def_prop_ro("block_bytes", &Engine::block_bytes)
      .def_prop_ro("kv_bytes_held", &Engine::kv_bytes_held)
      .def("trim_kv_cache", &Engine::trim_kv_cache)
      .def("start_meters", &Engine::start_meters)
      .def("stop_meters", &Engine::stop_meters)
      .def("before_fork", &Engine::before_fork)
      .def("after_fork", &Engine::after_fork);
}

}  // namespace gpt2lab
