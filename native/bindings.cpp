// The only file that knows Python: checks every argument, then hands plain arrays to the core with the GIL released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
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
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

FloatArray copy_of(const Array1<float>& a, std::size_t size, const char* name) {
  if (a.shape(0) != size)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(a.shape(0)) + " values, not " +
                                std::to_string(size));
  FloatArray copy((size + kTile - 1) / kTile * kTile);  // padded for the kernels
  std::memcpy(copy.data(), a.data(), size * sizeof(float));
  return copy;
}

void check_shape(const Array2<float>& a, std::size_t rows, std::size_t columns, const char* name) {
  if (a.shape(0) != rows || a.shape(1) != columns)
    throw std::invalid_argument(std::string(name) + " is [" + std::to_string(a.shape(0)) + ", " +
                                std::to_string(a.shape(1)) + "], not [" + std::to_string(rows) + ", " +
                                std::to_string(columns) + "]");
}

// A model with its KV cache, threads and sampler. Safe to call from several Python threads: calls take turns.
class Engine {
 public:
  Engine(int n_vocab, int n_ctx, int n_embd, int n_head, int n_layer, int threads, const std::string& instruction_set)
      : shape_{n_vocab, n_ctx, n_embd, n_head, n_layer},
        kernels_(choose_kernels(instruction_set)),
        pool_(threads),
        samplers_(std::max(threads, 1), Sampler(kernels_)) {
    if (n_vocab < 1 || n_ctx < 1 || n_embd < 1 || n_head < 1 || n_layer < 1 || n_embd % n_head != 0)
      throw std::invalid_argument("impossible model shape");
    model_ = std::make_unique<Transformer>(shape_, kernels_, pool_);
    model_->weights.layers.resize(n_layer);
  }

  void set_embeddings(const Array2<float>& wte, const Array2<float>& wpe) {
    check_shape(wte, shape_.n_vocab, shape_.n_embd, "wte");
    check_shape(wpe, shape_.n_ctx, shape_.n_embd, "wpe");
    nb::gil_scoped_release release;
    model_->weights.wte = pack(wte.data(), shape_.n_embd, shape_.n_vocab, Layout::output_major, pool_);
    model_->weights.wpe = FloatArray(wpe.size());
    std::memcpy(model_->weights.wpe.data(), wpe.data(), wpe.size() * sizeof(float));
  }

  void set_norm(const std::string& name, int layer, const Array1<float>& gain, const Array1<float>& bias) {
    Norm& norm = name == "ln_1"   ? at(layer).ln_1
                 : name == "ln_2" ? at(layer).ln_2
                 : name == "ln_f" ? model_->weights.ln_f
                                  : throw std::invalid_argument("no layer norm '" + name + "'");
    norm = {copy_of(gain, shape_.n_embd, name.c_str()), copy_of(bias, shape_.n_embd, name.c_str())};
  }

  void set_linear(const std::string& name, int layer, const Array2<float>& weight, const Array1<float>& bias) {
    const int n = shape_.n_embd;
    struct Slot {
      Linear& linear;
      int k, n;
    };
    const Slot slot = name == "attn.c_attn"   ? Slot{at(layer).attn_qkv, n, 3 * n}
                      : name == "attn.c_proj" ? Slot{at(layer).attn_proj, n, n}
                      : name == "mlp.c_fc"    ? Slot{at(layer).mlp_fc, n, 4 * n}
                      : name == "mlp.c_proj"  ? Slot{at(layer).mlp_proj, 4 * n, n}
                                              : throw std::invalid_argument("no product '" + name + "'");
    check_shape(weight, slot.k, slot.n, name.c_str());
    slot.linear.bias = copy_of(bias, slot.n, name.c_str());
    nb::gil_scoped_release release;
    slot.linear.weight = pack(weight.data(), slot.k, slot.n, Layout::input_major, pool_);
  }

  int new_sequence() { return locked([&] { return model_->cache().create(); }); }
  int fork_sequence(int sequence) { return locked([&] { return model_->cache().fork(sequence); }); }
  void free_sequence(int sequence) { locked([&] { model_->cache().free(sequence); }); }
  int sequence_length(int sequence) { return locked([&] { return model_->cache().length(sequence); }); }
  void truncate_sequence(int sequence, int length) { locked([&] { model_->cache().truncate(sequence, length); }); }

  // tokens: all feeds' tokens after one another; counts: how many belong to each sequence. outputs: 0 last, 1 all, 2 none.
  Logits forward(const Array1<std::int32_t>& sequences, const Array1<std::int32_t>& tokens,
                 const Array1<std::int32_t>& counts, int outputs) {
    std::unique_lock<std::mutex> lock = acquire();
    const std::vector<Feed> feeds = checked_feeds(sequences, tokens, counts);
    const auto wanted = outputs == 0 ? Outputs::last : outputs == 1 ? Outputs::all : Outputs::none;
    const std::size_t rows = wanted == Outputs::last ? feeds.size() : wanted == Outputs::all ? tokens.shape(0) : 0;
    // From the allocator, which gives memory back that is warm: fresh pages cost more than a small model's step.
    std::unique_ptr<float[]> logits(new float[rows * shape_.n_vocab]);
    float* data = logits.get();
    {
      nb::gil_scoped_release release;
      if (!feeds.empty()) model_->forward(feeds, wanted, data);
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
    std::unique_lock<std::mutex> lock = acquire();
    auto* tokens = new std::int32_t[rows];
    nb::capsule tokens_owner(tokens, [](void* p) noexcept { delete[] static_cast<std::int32_t*>(p); });
    auto* logprobs = new float[rows];
    nb::capsule logprobs_owner(logprobs, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    std::vector<DrawStatus> status(rows);
    const auto draw_row = [&](std::size_t row, int thread) {
      const double* p = params.data() + row * 7;
      const std::uint64_t* s = streams.data() + row * 3;
      const std::int64_t h = history_offsets.data()[row], b = bias_offsets.data()[row];
      const Draw draw{{p[0], std::int64_t(p[1]), p[2], p[3], p[4], p[5], p[6]}, s[0], s[1], std::uint32_t(s[2]),
                      history.data() + h, std::size_t(history_offsets.data()[row + 1] - h), bias_ids.data() + b,
                      bias_values.data() + b, std::size_t(bias_offsets.data()[row + 1] - b)};
      const DrawResult result = samplers_[thread].draw(logits.data() + row * n_vocab, int(n_vocab), draw);
      tokens[row] = result.token;
      logprobs[row] = result.logprob;
      status[row] = result.status;
    };
    {
      nb::gil_scoped_release release;
      if (rows == 1) draw_row(0, 0);
      else
        pool_.run([&](int thread) {
          for (std::size_t row = thread; row < rows; row += pool_.size()) draw_row(row, thread);
        });
    }
    for (std::size_t row = 0; row < rows; ++row) raise_if_failed(status[row], row);
    return nb::make_tuple(nb::ndarray<nb::numpy, std::int32_t, nb::ndim<1>>(tokens, {rows}, tokens_owner),
                          nb::ndarray<nb::numpy, float, nb::ndim<1>>(logprobs, {rows}, logprobs_owner));
  }

  int threads() const { return pool_.size(); }
  std::string instruction_set() const { return kernels_.name; }
  int blocks_in_use() { return locked([&] { return model_->cache().blocks_in_use(); }); }
  std::size_t block_bytes() { return model_->cache().block_bytes(); }

 private:
  Layer& at(int layer) {
    if (layer < 0 || layer >= shape_.n_layer) throw std::invalid_argument("no layer " + std::to_string(layer));
    return model_->weights.layers[layer];
  }

  // Waits without the GIL, or a thread that holds the engine and wants the GIL back would wait for this one.
  std::unique_lock<std::mutex> acquire() {
    nb::gil_scoped_release release;
    return std::unique_lock<std::mutex>(mutex_);
  }

  template <typename F>
  std::invoke_result_t<F> locked(F&& f) {
    std::unique_lock<std::mutex> lock = acquire();
    return f();
  }

  std::vector<Feed> checked_feeds(const Array1<std::int32_t>& sequences, const Array1<std::int32_t>& tokens,
                                  const Array1<std::int32_t>& counts) {
    if (sequences.shape(0) != counts.shape(0)) throw std::invalid_argument("as many counts as sequences are needed");
    if (model_->weights.wte.k == 0) throw std::invalid_argument("the engine has no weights yet");
    std::vector<Feed> feeds;
    std::unordered_set<int> seen;
    std::size_t next = 0;
    for (std::size_t i = 0; i < sequences.shape(0); ++i) {
      const int sequence = sequences.data()[i], count = counts.data()[i];
      const int length = model_->cache().length(sequence);
      if (!seen.insert(sequence).second)
        throw std::invalid_argument("sequence " + std::to_string(sequence) + " is fed twice in one call");
      if (count < 1 || std::size_t(count) > tokens.shape(0) - next)
        throw std::invalid_argument("each sequence needs at least one token");
      if (count > shape_.n_ctx - length)
        throw std::overflow_error(std::to_string(length) + " tokens and " + std::to_string(count) +
                                " more are over the context of " + std::to_string(shape_.n_ctx));
      feeds.push_back({sequence, tokens.data() + next, count});
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
    check_offsets(history_offsets, rows, history.shape(0));
    check_offsets(bias_offsets, rows, bias_ids.shape(0));
    if (bias_ids.shape(0) != bias_values.shape(0)) throw std::invalid_argument("as many bias values as ids are needed");
    check_ids(history.data(), history.shape(0));
    check_ids(bias_ids.data(), bias_ids.shape(0));
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
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
  }, "Names of the kernels that this CPU can run, fastest first.");
  m.def("philox_uniform", &philox_uniform, nb::arg("seed"), nb::arg("stream"), nb::arg("position"));
  nb::class_<Engine>(m, "Engine")
      .def(nb::init<int, int, int, int, int, int, const std::string&>(), nb::arg("n_vocab"), nb::arg("n_ctx"),
           nb::arg("n_embd"), nb::arg("n_head"), nb::arg("n_layer"), nb::arg("threads"), nb::arg("instruction_set"))
      .def("set_embeddings", &Engine::set_embeddings)
      .def("set_norm", &Engine::set_norm)
      .def("set_linear", &Engine::set_linear)
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
