// The module's class Engine: the transformer and the sampler on Python's arrays and lists.
//
// engine.cpp has weights, sequences, forward passes and draws, inspection.cpp what looks inside.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "exit_gate.h"
#include "stepper.h"
#include "transformer.h"

namespace gpt2lab {

// A model with its KV cache, threads and sampler. Several Python threads may call it: calls take turns.
class Engine {
 public:
  using Tensor = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
  template <typename T>
  using Result = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
  using Bytes = nb::ndarray<nb::memview, std::uint8_t, nb::ndim<1>>;
  using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
  using Activations = nb::ndarray<nb::numpy, float, nb::ndim<3>>;
  template <typename T>
  using List = std::vector<T>;
  using StepResult = std::tuple<List<std::int32_t>, List<float>, List<int>, List<std::int32_t>, List<float>>;
  // A change in the layout of Edit: site, layer, add, first column, first position, number of positions (0: all from
  // the first on), values [positions, columns].
  using Change = std::tuple<int, int, bool, int, int, int, Array2<float>>;

  Engine(int n_vocab, int n_ctx, int n_embd, int n_head, int n_layer, int threads, const std::string& instruction_set,
         const std::string& precision, const std::string& kv_precision, std::optional<int> n_inner,
         const std::string& activation, double layer_norm_epsilon, bool scale_attn_weights,
         bool scale_attn_by_inverse_layer_idx, bool tie_word_embeddings);

  void set_tensor(const std::string& name, const Tensor& values);

  // Packs a matrix that is already rounded: q [n_out, n_in], scales [n_out, n_blocks], factors [n_out, n_groups].
  void set_integers(const std::string& name, const Array2<std::int8_t>& q, const Array2<float>& scales,
                    const std::optional<Array2<std::int8_t>>& factors);

  // Returns the bytes of all weights. A caller that writes to them must make sure that no thread computes meanwhile.
  Bytes packed();

  std::size_t packed_size() { return model_->weights.memory().size(); }

  void mark_loaded();

  int new_sequence() { return take_turn()->create(); }

  int fork_sequence(int sequence);

  void free_sequence(int sequence);

  int sequence_length(int sequence) { return take_turn()->length(sequence); }
  void truncate_sequence(int sequence, int length) { take_turn()->truncate(sequence, length); }

  // Returns a copy of the keys and values of a sequence, [n_layer, 2, n_head, tokens, head_dim] with keys first. In
  // int8 the last axis has four bytes more, a row's scale in float32.
  nb::ndarray<nb::numpy> read_sequence(int sequence);

  // Returns a new sequence with keys and values that read_sequence() returned.
  int write_sequence(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& values);

  // Runs a forward pass and returns logits. tokens: the tokens of all feeds, concatenated; counts: the number of tokens
  // per sequence; outputs: logits of 0 the last, 1 all, 2 no tokens.
  Logits forward(const List<std::int32_t>& sequences, const List<std::int32_t>& tokens,
                 const List<std::int32_t>& counts, int outputs);

  // Draws one token per row of logits. params: the numbers of SamplingParams, row after row; streams: seed, stream and
  // position of each. The history and biases of row i lie at offsets[i] … offsets[i + 1].
  nb::tuple sample(const Array2<float>& logits, const Array1<double>& params, const List<std::uint64_t>& streams,
                   const List<std::int32_t>& history, const List<std::int64_t>& history_offsets,
                   const Array1<std::int32_t>& bias_ids, const Array1<double>& bias_values,
                   const Array1<std::int64_t>& bias_offsets);

  // Feeds counts[i] of `tokens` to sequences[i]. Draws after each of the last draw_counts[i] tokens, as long as the
  // drawn token is the one that was fed next, with the top[i] likeliest tokens for each draw. streams: seed, stream and
  // first position of each; params, histories and biases are as in `sample`. Returns the ids and logprobs of all draws,
  // the number of draws per sequence, and the ids and logprobs of the likeliest tokens. If a draw fails, the tokens fed
  // are removed again. Arguments that change with every step, and results, are lists: for so few numbers they are
  // cheaper than arrays.
  StepResult step(const List<std::int32_t>& sequences, const List<std::int32_t>& tokens,
                  const List<std::int32_t>& counts, const List<std::int32_t>& draw_counts, const Array1<double>& params,
                  const List<std::uint64_t>& streams, const List<std::int32_t>& history,
                  const List<std::int64_t>& history_offsets, const Array1<std::int32_t>& bias_ids,
                  const Array1<double>& bias_values, const Array1<std::int64_t>& bias_offsets,
                  const List<std::int32_t>& top);

  // Replaces the edits of tokens that are fed to a sequence from now on; its forks inherit them.
  void edit_sequence(int sequence, const std::vector<Change>& changes);

  // Feeds `tokens` to a sequence and returns the activations of each at `sites`, from `first_layer` on:
  // [layers, tokens, n_embd] each, the layers of the residual stream one more than the others.
  std::vector<Activations> record(int sequence, const List<std::int32_t>& tokens, const std::vector<int>& sites,
                                  int first_layer);

  // Returns the logits of rows at the end of the residual stream.
  Logits unembed(const Array2<float>& x);

  // Returns the products of rows with every token's embedding.
  Logits compare(const Array2<float>& x);

  Result<float> embedding_lengths();

  // Returns a token's row of the embedding, or of the output matrix.
  Result<float> token_row(int token, bool output);

  Result<float> pull_back(int layer, const Array1<float>& direction);

  void start_meters() { take_turn(), model_->start_meters(); }

  // Returns the seconds of each thread in each part since start_meters().
  std::vector<std::vector<double>> stop_meters();

  int threads() const { return pool_.size(); }
  void keep_to_cores() { take_turn(), pool_.keep_to_cores(); }
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

  template <typename F>
  Logits products_of(const Array2<float>& x, F&& compute);
  template <typename F>
  Result<float> vector_of(int size, F&& compute);
  // Runs a computation on complete weights that nobody else uses meanwhile.
  template <typename F>
  void compute_alone(F&& compute);

  nb::dlpack::dtype kv_type();

  // Returns the numbers in a row of keys or values, as read_sequence() returns them.
  std::int64_t row_numbers() { return std::int64_t(model_->cache().row_bytes() * 8 / kv_type().bits); }

  std::size_t sequence_bytes(std::size_t tokens);

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::unique_ptr<Transformer> model_;
  Stepper stepper_;
  std::mutex mutex_;
};

// Adds the methods of inspection.cpp.
void bind_inspection(nb::class_<Engine>& engine);

}  // namespace gpt2lab
