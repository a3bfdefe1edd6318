// The only file that knows Python: checks every argument, then hands plain arrays to the core with the GIL released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_set>

#include "instruction_set.h"
#include "philox.h"
#include "sampler.h"
#include "transformer.h"

namespace nb = nanobind;

namespace gpt2lab {
namespace {

template <typename T>
using Array1 = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array2 = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tensor = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// Lets the interpreter end while other threads compute: they would end the process if they asked for a GIL that is gone.
class ExitGate {
 public:
  // Counts a call in; once the interpreter ends, whoever comes waits here for ever. Without the GIL.
  void enter() {
    ++calls_;
    if (!closed_) return;
    --calls_;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  void leave() { --calls_; }

  // Returns when the calls under way have ended. Not for forked processes, which lack the threads that would end them.
  void close() {
    closed_ = true;
    while (calls_ > 0 && owner_ == getpid()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  std::atomic<int> calls_{0};
  std::atomic<bool> closed_{false};
  pid_t owner_ = getpid();
};

ExitGate exit_gate;

int checked_threads(int threads) {
  if (threads < 1 || threads > 1024)
    throw std::invalid_argument("threads must be from 1 to 1024, got " + std::to_string(threads));
  return threads;
}

Shape checked_shape(const Shape& s) {
  if (s.n_vocab < 1 || s.n_ctx < 1 || s.n_embd < 1 || s.n_head < 1 || s.n_layer < 1 || s.n_embd % s.n_head != 0)
    throw std::invalid_argument("impossible model shape");
  return s;
}

Precision checked_precision(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "q8_0") return Precision::q8_0;
  if (name == "q4_0") return Precision::q4_0;
  throw std::invalid_argument("no precision '" + name + "'");
}

bool checked_half(const std::string& kv_precision) {
  if (kv_precision != "float32" && kv_precision != "float16")
    throw std::invalid_argument("no precision '" + kv_precision + "' for keys and values");
  return kv_precision == "float16";
}

// A model with its KV cache, threads and sampler. Safe to call from several Python threads: calls take turns.
class Engine {
 public:
  Engine(int n_vocab, int n_ctx, int n_embd, int n_head, int n_layer, int threads, const std::string& instruction_set,
         const std::string& precision, const std::string& kv_precision)
      : shape_(checked_shape({n_vocab, n_ctx, n_embd, n_head, n_layer})),
        kernels_(choose_kernels(instruction_set)),
        pool_(checked_threads(threads)),
        model_(std::make_unique<Transformer>(shape_, checked_precision(precision), checked_half(kv_precision), kernels_,
                                             pool_)) {
    for (int thread = 0; thread < threads; ++thread) samplers_.emplace_back(kernels_);
  }

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

  // The bytes of all weights. Whoever writes to them must see to it that nobody computes meanwhile.
  Bytes packed() {
    Array<std::byte>& memory = model_->weights.memory();
    return Bytes(memory.data(), {memory.size()}, nb::find(this));
  }

  std::size_t packed_size() { return model_->weights.memory().size(); }

  void mark_loaded() {
    const Turn turn = take_turn();
    model_->weights.mark_all_set();
  }

  int new_sequence() { return take_turn()->create(); }
  int fork_sequence(int sequence) { return take_turn()->fork(sequence); }
  void free_sequence(int sequence) { take_turn()->free(sequence); }
  int sequence_length(int sequence) { return take_turn()->length(sequence); }
  void truncate_sequence(int sequence, int length) { take_turn()->truncate(sequence, length); }

  // tokens: all feeds' tokens after one another; counts: how many belong to each sequence. outputs: 0 last, 1 all, 2 none.
  Logits forward(const Array1<std::int32_t>& sequences, const Array1<std::int32_t>& tokens,
                 const Array1<std::int32_t>& counts, int outputs) {
    if (outputs < 0 || outputs > 2) throw std::invalid_argument("outputs must be 0, 1 or 2");
    const std::size_t rows = outputs == 0 ? sequences.shape(0) : outputs == 1 ? tokens.shape(0) : 0;
    // From the allocator, which gives memory back that is warm: fresh pages cost more than a small model's step.
    std::unique_ptr<float[]> logits(new float[rows * shape_.n_vocab]);
    float* data = logits.get();
    {
      const Turn turn = take_turn();
      std::vector<Feed> feeds = checked_feeds(sequences, tokens, counts);
      for (Feed& feed : feeds) feed.outputs = outputs == 0 ? 1 : outputs == 1 ? feed.count : 0;
      nb::gil_scoped_release release;
      if (!feeds.empty()) model_->forward(feeds, data);
    }
    nb::capsule owner(logits.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Logits(data, {rows, std::size_t(shape_.n_vocab)}, owner);
  }

  // params: per row the seven numbers of SamplingParams. History and bias of row i lie at offsets[i] … offsets[i + 1].
  nb::tuple sample(const Array2<float>& logits, const Array2<double>& params, const Array2<std::uint64_t>& streams,
                   const Array1<std::int32_t>& history, const Array1<std::int64_t>& history_offsets,
                   const Array1<std::int32_t>& bias_ids, const Array1<double>& bias_values,
                   const Array1<std::int64_t>& bias_offsets) {
    const std::size_t rows = logits.shape(0), n_vocab = logits.shape(1);
    check_sampling(rows, n_vocab, params, streams, history, history_offsets, bias_ids, bias_values, bias_offsets);
    std::vector<Draw> draws(rows);
    for (std::size_t row = 0; row < rows; ++row) {
      const double* p = params.data() + row * 7;
      const std::uint64_t* s = streams.data() + row * 3;
      const std::int64_t h = history_offsets.data()[row], b = bias_offsets.data()[row];
      draws[row] = {{p[0], std::int64_t(p[1]), p[2], p[3], p[4], p[5], p[6]}, s[0], s[1], std::uint32_t(s[2]),
                    {history.data() + h, std::size_t(history_offsets.data()[row + 1] - h)}, {}, bias_ids.data() + b,
                    bias_values.data() + b, std::size_t(bias_offsets.data()[row + 1] - b)};
    }
    std::vector<DrawResult> results(rows);
    {
      const Turn turn = take_turn();
      nb::gil_scoped_release release;
      draw_rows(logits.data(), draws, results);
    }
    for (std::size_t row = 0; row < rows; ++row) raise_if_failed(results[row].status, row);
    return nb::make_tuple(array_of<std::int32_t>(results, &DrawResult::token),
                          array_of<float>(results, &DrawResult::logprob));
  }

  int threads() const { return pool_.size(); }
  std::string instruction_set() const { return kernels_.name; }
  int blocks_in_use() { return take_turn()->blocks_in_use(); }
  std::size_t block_bytes() { return model_->cache().block_bytes(); }

 private:
  // Holding one is having the engine to oneself. No Python object may be made while one is held: that may run the
  // garbage collector, and with it somebody's finaliser that frees a sequence.
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

  // Waits without the GIL, or a thread that holds the engine and wants the GIL back would wait for this one.
  Turn take_turn() {
    nb::gil_scoped_release release;
    return Turn(*this);
  }

  void draw_rows(const float* logits, const std::vector<Draw>& draws, std::vector<DrawResult>& results) {
    const std::size_t rows = draws.size(), n_vocab = shape_.n_vocab;
    const int threads = int(std::min<std::size_t>(rows, pool_.size()));
    for (int thread = 0; thread < threads; ++thread) samplers_[thread].reserve(shape_.n_vocab);
    const auto work = [&](int thread) {
      for (std::size_t row = thread; row < rows; row += pool_.size())
        results[row] = samplers_[thread].draw(logits + row * n_vocab, shape_.n_vocab, draws[row]);
    };
    if (rows == 1) work(0);
    else pool_.run(work);
  }

  template <typename T>
  static nb::ndarray<nb::numpy, T, nb::ndim<1>> array_of(const std::vector<DrawResult>& results, T DrawResult::*field) {
    auto* values = new T[results.size()];
    nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    for (std::size_t i = 0; i < results.size(); ++i) values[i] = results[i].*field;
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(values, {results.size()}, owner);
  }

  std::vector<Feed> checked_feeds(const Array1<std::int32_t>& sequences, const Array1<std::int32_t>& tokens,
                                  const Array1<std::int32_t>& counts) {
    if (sequences.shape(0) != counts.shape(0)) throw std::invalid_argument("as many counts as sequences are needed");
    if (!model_->weights.complete()) throw std::invalid_argument("the engine lacks some of its weights");
    std::vector<Feed> feeds;
    std::unordered_set<int> seen;
    std::size_t next = 0;
    for (std::size_t i = 0; i < sequences.shape(0); ++i) {
      const int sequence = sequences.data()[i], count = counts.data()[i];
      const int length = model_->cache().length(sequence);
      if (!seen.insert(sequence).second)
        throw std::invalid_argument("sequence " + std::to_string(sequence) + " is fed twice in one call");
      if (count < 1) throw std::invalid_argument("each sequence needs at least one token");
      if (std::size_t(count) > tokens.shape(0) - next) throw std::invalid_argument("fewer tokens than counts add up to");
      if (count > shape_.n_ctx - length)
        throw std::overflow_error(std::to_string(length) + " tokens and " + std::to_string(count) +
                                " more are over the context of " + std::to_string(shape_.n_ctx));
      feeds.push_back({sequence, tokens.data() + next, count, 0});
      next += count;
    }
    if (next != tokens.shape(0)) throw std::invalid_argument("more tokens than the counts add up to");
    check_ids(tokens.data(), next);
    return feeds;
  }

  void check_ids(const std::int32_t* ids, std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i)
      if (ids[i] < 0 || ids[i] >= shape_.n_vocab)
        throw std::out_of_range("token id " + std::to_string(ids[i]) + " is not in the vocabulary of " +
                                std::to_string(shape_.n_vocab));
  }

  void check_sampling(std::size_t rows, std::size_t n_vocab, const Array2<double>& params,
                      const Array2<std::uint64_t>& streams, const Array1<std::int32_t>& history,
                      const Array1<std::int64_t>& history_offsets, const Array1<std::int32_t>& bias_ids,
                      const Array1<double>& bias_values, const Array1<std::int64_t>& bias_offsets) const {
    if (n_vocab != std::size_t(shape_.n_vocab)) throw std::invalid_argument("logits do not fit the vocabulary");
    if (params.shape(0) != rows || params.shape(1) != 7) throw std::invalid_argument("params must be [rows, 7]");
    if (streams.shape(0) != rows || streams.shape(1) != 3) throw std::invalid_argument("streams must be [rows, 3]");
    for (std::size_t row = 0; row < rows; ++row) check_params(params.data() + row * 7);
    for (std::size_t row = 0; row < rows; ++row)
      if (streams.data()[row * 3 + 2] > UINT32_MAX) throw std::invalid_argument("positions must be below 2^32");
    check_offsets(history_offsets, rows, history.shape(0));
    check_offsets(bias_offsets, rows, bias_ids.shape(0));
    if (bias_ids.shape(0) != bias_values.shape(0)) throw std::invalid_argument("as many bias values as ids are needed");
    check_ids(history.data(), history.shape(0));
    check_ids(bias_ids.data(), bias_ids.shape(0));
  }

  static void check_params(const double* p) {
    const bool good = p[0] >= 0 && std::isfinite(p[0]) && p[1] >= 0 && p[1] <= 9e15 && p[2] >= 0 && p[2] <= 1 &&
                      p[3] >= 0 && p[3] <= 1 && p[4] > 0 && std::isfinite(p[4]) && std::isfinite(p[5]) &&
                      std::isfinite(p[6]);
    if (!good) throw std::invalid_argument("sampling parameters out of range");
  }

  static void check_offsets(const Array1<std::int64_t>& offsets, std::size_t rows, std::size_t size) {
    bool good = offsets.shape(0) == rows + 1 && offsets.data()[0] == 0 && offsets.data()[rows] == std::int64_t(size);
    for (std::size_t i = 0; good && i < rows; ++i) good = offsets.data()[i] <= offsets.data()[i + 1];
    if (!good) throw std::invalid_argument("offsets must rise from 0 to the number of values");
  }

  static void raise_if_failed(DrawStatus status, std::size_t row) {
    const std::string at = " in row " + std::to_string(row);
    if (status == DrawStatus::nan_logit) throw std::domain_error("a logit is NaN" + at);
    if (status == DrawStatus::infinite_logit) throw std::domain_error("a logit is +inf" + at);
    if (status == DrawStatus::no_candidate) throw std::domain_error("every logit is -inf" + at);
  }

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<Sampler> samplers_;
  std::unique_ptr<Transformer> model_;
  std::mutex mutex_;
};

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // an engine that lives until the interpreter ends is not a mistake
  nb::module_::import_("atexit").attr("register")(nb::cpp_function([] {
    nb::gil_scoped_release release;
    exit_gate.close();
  }));
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
  }, "Names of the kernels that this CPU can run, fastest first.");
  m.attr("PACKED_LAYOUT") = kPackedLayout;
  m.def("checksum", [](const Array1<std::uint8_t>& bytes) {
    nb::gil_scoped_release release;
    return checksum(bytes.data(), bytes.shape(0));
  }, "A checksum of 64 bits, against damage and not against malice.");
  m.def("philox_uniform", &philox_uniform, nb::arg("seed"), nb::arg("stream"), nb::arg("position"));
  nb::class_<Engine>(m, "Engine")
      .def(nb::init<int, int, int, int, int, int, const std::string&, const std::string&, const std::string&>(),
           nb::arg("n_vocab"), nb::arg("n_ctx"), nb::arg("n_embd"), nb::arg("n_head"), nb::arg("n_layer"),
           nb::arg("threads"), nb::arg("instruction_set"), nb::arg("precision"), nb::arg("kv_precision"))
      .def("set_tensor", &Engine::set_tensor)
      .def("mark_loaded", &Engine::mark_loaded)
      .def_prop_ro("packed", &Engine::packed)
      .def_prop_ro("packed_size", &Engine::packed_size)
      .def("new_sequence", &Engine::new_sequence)
      .def("fork_sequence", &Engine::fork_sequence)
      .def("free_sequence", &Engine::free_sequence)
      .def("sequence_length", &Engine::sequence_length)
      .def("truncate_sequence", &Engine::truncate_sequence)
      .def("forward", &Engine::forward)
      .def("sample", &Engine::sample)
      .def_prop_ro("threads", &Engine::threads)
      .def_prop_ro("instruction_set", &Engine::instruction_set)
      .def_prop_ro("blocks_in_use", &Engine::blocks_in_use)
      .def_prop_ro("block_bytes", &Engine::block_bytes);
}

}  // namespace gpt2lab
