#include "engine.h"

#include <span>
#include <stdexcept>
#include <utility>

#include "draw_arguments.h"
#include "engine_arguments.h"
#include "instruction_set.h"

namespace gpt2lab {
namespace {

template <typename T>
Engine::Result<T> array_of(const std::vector<DrawResult>& results, T DrawResult::* field) {
  auto* values = new T[results.size()];
  nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  for (std::size_t i = 0; i < results.size(); ++i) values[i] = results[i].*field;
  return Engine::Result<T>(values, {results.size()}, owner);
}

Engine::StepResult lists_of(const std::vector<Chain>& chains) {
  Engine::StepResult result;
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

}  // namespace

Engine::Engine(int n_vocab, int n_ctx, int n_embd, int n_head, int n_layer, int threads,
               const std::string& instruction_set, const std::string& precision, const std::string& kv_precision,
               std::optional<int> n_inner, const std::string& activation, double layer_norm_epsilon,
               bool scale_attn_weights, bool scale_attn_by_inverse_layer_idx, bool tie_word_embeddings)
    : shape_(checked_shape({n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner.value_or(default_inner(n_embd)),
                            checked_activation(activation), float(layer_norm_epsilon), scale_attn_weights,
                            scale_attn_by_inverse_layer_idx, tie_word_embeddings})),
      kernels_(choose_kernels(instruction_set)), pool_(checked_threads(threads)),
      model_(std::make_unique<Transformer>(shape_, checked_precision(precision), checked_kv_precision(kv_precision),
                                           kernels_, pool_)),
      stepper_(*model_, kernels_, pool_, n_vocab) {}

void Engine::set_tensor(const std::string& name, const Tensor& values) {
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

void Engine::set_integers(const std::string& name, const Array2<std::int8_t>& q, const Array2<float>& scales,
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

Engine::Bytes Engine::packed() {
  Array<std::byte>& memory = model_->weights.memory();
  return Bytes(memory.data(), {memory.size()}, nb::find(this));
}

void Engine::mark_loaded() {
  const Turn turn = take_turn();
  model_->weights.mark_all_set();
}

int Engine::fork_sequence(int sequence) {
  const Turn turn = take_turn();
  const int fork = turn->fork(sequence);
  try {
    model_->hooks().copy(sequence, fork);
  } catch (...) {
    turn->free(fork);
    throw;
  }
  return fork;
}

void Engine::free_sequence(int sequence) {
  const Turn turn = take_turn();
  turn->free(sequence);
  model_->hooks().erase(sequence);
}

nb::ndarray<nb::numpy> Engine::read_sequence(int sequence) {
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

int Engine::write_sequence(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& values) {
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

nb::dlpack::dtype Engine::kv_type() {
  switch (model_->cache().precision()) {
    case KVPrecision::float32: return nb::dtype<float>();
    case KVPrecision::float16: return {2, 16, 1};
    case KVPrecision::bfloat16: return nb::dtype<std::uint16_t>();  // NumPy has no bfloat16
    case KVPrecision::int8: return nb::dtype<std::int8_t>();
  }
  return {};  // never reached
}

std::size_t Engine::sequence_bytes(std::size_t tokens) {
  return tokens * 2 * shape_.n_layer * shape_.n_head * model_->cache().row_bytes();
}

Engine::Logits Engine::forward(const List<std::int32_t>& sequences, const List<std::int32_t>& tokens,
                               const List<std::int32_t>& counts, int outputs) {
  if (outputs < 0 || outputs > 2) throw std::invalid_argument("outputs must be 0, 1 or 2");
  const std::size_t rows = outputs == 0 ? sequences.size() : outputs == 1 ? tokens.size() : 0;
  // The allocator reuses warm memory: fresh pages would cost more than a small model's step.
  std::unique_ptr<float[]> logits(new float[rows * shape_.n_vocab]);
  float* data = logits.get();
  {
    const Turn turn = take_turn();
    std::vector<Feed> feeds = checked_feeds(*model_, shape_, sequences, tokens, counts);
    for (Feed& feed : feeds) feed.outputs = outputs == 0 ? 1 : outputs == 1 ? feed.count : 0;
    nb::gil_scoped_release release;
    if (!feeds.empty()) model_->forward(feeds, data);
  }
  nb::capsule owner(logits.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Logits(data, {rows, std::size_t(shape_.n_vocab)}, owner);
}

nb::tuple Engine::sample(const Array2<float>& logits, const Array1<double>& params, const List<std::uint64_t>& streams,
                         const List<std::int32_t>& history, const List<std::int64_t>& history_offsets,
                         const Array1<std::int32_t>& bias_ids, const Array1<double>& bias_values,
                         const Array1<std::int64_t>& bias_offsets) {
  const std::size_t rows = logits.shape(0), n_vocab = logits.shape(1);
  if (n_vocab != std::size_t(shape_.n_vocab)) throw DrawError("logits do not fit the vocabulary");
  const DrawArguments arguments{span_of(params),      streams,           history,
                                history_offsets,      span_of(bias_ids), span_of(bias_values),
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

Engine::StepResult Engine::step(const List<std::int32_t>& sequences, const List<std::int32_t>& tokens,
                                const List<std::int32_t>& counts, const List<std::int32_t>& draw_counts,
                                const Array1<double>& params, const List<std::uint64_t>& streams,
                                const List<std::int32_t>& history, const List<std::int64_t>& history_offsets,
                                const Array1<std::int32_t>& bias_ids, const Array1<double>& bias_values,
                                const Array1<std::int64_t>& bias_offsets, const List<std::int32_t>& top) {
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
    std::vector<Feed> feeds = checked_feeds(*model_, shape_, sequences, tokens, counts);
    run.emplace(draws, feeds, draw_counts, top, shape_.n_vocab);
    good = stepper_.step(feeds, run->chains);
  }
  for (std::size_t i = 0; i < run->chains.size() && !good; ++i)
    if (const Chain& chain = run->chains[i]; chain.drawn > 0) raise_if_failed(chain.results[chain.drawn - 1].status, i);
  return lists_of(run->chains);
}

void bind_engine(nb::module_& m) {
  nb::exception<DrawError>(m, "DrawError", PyExc_ValueError);
  nb::list names;
  for (const char* name : kPartNames) names.append(name);
  m.attr("PARTS") = nb::tuple(names);
  nb::class_<Engine> engine(m, "Engine", nb::is_weak_referenceable());
  engine
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
      .def("keep_to_cores", &Engine::keep_to_cores)
      .def("before_fork", &Engine::before_fork)
      .def("after_fork", &Engine::after_fork);
  bind_inspection(engine);
}

}  // namespace gpt2lab
