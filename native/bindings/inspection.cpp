// The methods of Engine that look inside: changes and records of activations, single rows of weights, and meters.
#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "engine.h"
#include "engine_arguments.h"

namespace gpt2lab {
namespace {

template <typename T>
T owned(std::unique_ptr<float[]> memory, std::initializer_list<std::size_t> shape) {
  float* data = memory.get();
  nb::capsule owner(memory.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return T(data, shape, owner);
}

}  // namespace

template <typename F>
void Engine::compute_alone(F&& compute) {
  const Turn turn = take_turn();
  if (!model_->weights.complete()) throw std::invalid_argument("the engine lacks some of its weights");
  nb::gil_scoped_release release;
  compute();
}

template <typename F>
Engine::Logits Engine::products_of(const Array2<float>& x, F&& compute) {
  if (x.shape(1) != std::size_t(shape_.n_embd)) throw std::invalid_argument("rows must have n_embd numbers");
  if (x.shape(0) > 1 << 20) throw std::invalid_argument("too many rows");
  const std::size_t n_vocab = shape_.n_vocab;
  std::unique_ptr<float[]> products(new float[x.shape(0) * n_vocab]);
  compute_alone([&] { compute(products.get()); });
  return owned<Logits>(std::move(products), {x.shape(0), n_vocab});
}

template <typename F>
Engine::Result<float> Engine::vector_of(int size, F&& compute) {
  std::unique_ptr<float[]> values(new float[size]);
  compute_alone([&] { compute(values.get()); });
  return owned<Result<float>>(std::move(values), {std::size_t(size)});
}

void Engine::edit_sequence(int sequence, const std::vector<Change>& changes) {
  Edits edits;
  for (const auto& [site, layer, add, column, first, count, values] : changes) {
    const std::size_t rows = values.shape(0), width = values.shape(1);
    if (site < 0 || site >= kSites || layer < 0 || layer > shape_.n_layer - (site != int(Site::resid_pre)) ||
        column < 0 || width < 1 || width > std::size_t(shape_.n_embd - std::min(column, shape_.n_embd)) || first < 0 ||
        first > shape_.n_ctx || count < 0 || count > shape_.n_ctx || rows != std::size_t(std::max(1, count)))
      throw std::invalid_argument("an edit that does not fit the model");
    edits.push_back({Site(site), layer, add, column, int(width), first, count,
                     std::vector<float>(values.data(), values.data() + values.size())});
  }
  const Turn turn = take_turn();
  turn->length(sequence);  // throws unless there is such a sequence
  model_->hooks().set(sequence, std::move(edits));
}

std::vector<Engine::Activations> Engine::record(int sequence, const List<std::int32_t>& tokens,
                                                const std::vector<int>& sites, int first_layer) {
  if (first_layer < 0 || first_layer > shape_.n_layer) throw std::invalid_argument("no such layer");
  Recording recording{{}, first_layer, tokens.size()};
  std::vector<std::unique_ptr<float[]>> memory;
  std::vector<std::size_t> layers;
  const std::int32_t count = std::int32_t(tokens.size());
  {
    const Turn turn = take_turn();
    const std::vector<Feed> feeds = checked_feeds(*model_, shape_, {&sequence, 1}, tokens, {&count, 1});
    nb::gil_scoped_release release;
    for (const int site : sites) {
      if (site < 0 || site >= kSites) throw std::invalid_argument("no such site");
      if (recording.sites[site]) throw std::invalid_argument("a site cannot be recorded twice");
      layers.push_back(std::size_t(shape_.n_layer - first_layer + (site == int(Site::resid_pre))));
      memory.emplace_back(new float[layers.back() * recording.rows * shape_.n_embd]);
      recording.sites[site] = memory.back().get();
    }
    model_->forward(feeds, nullptr, &recording);
  }
  std::vector<Activations> results;
  for (std::size_t i = 0; i < memory.size(); ++i)
    results.push_back(
        owned<Activations>(std::move(memory[i]), {layers[i], recording.rows, std::size_t(shape_.n_embd)}));
  return results;
}

Engine::Logits Engine::unembed(const Array2<float>& x) {
  return products_of(x, [&](float* out) { model_->unembed(x.data(), int(x.shape(0)), out); });
}

Engine::Logits Engine::compare(const Array2<float>& x) {
  return products_of(x, [&](float* out) { model_->compare(x.data(), int(x.shape(0)), out); });
}

Engine::Result<float> Engine::embedding_lengths() {
  return vector_of(shape_.n_vocab, [&](float* out) { model_->embedding_lengths(out); });
}

Engine::Result<float> Engine::token_row(int token, bool output) {
  check_ids({&token, 1}, shape_.n_vocab);
  return vector_of(shape_.n_embd,
                   [&](float* out) { (output ? model_->weights.head() : model_->weights.wte()).column(token, out); });
}

Engine::Result<float> Engine::pull_back(int layer, const Array1<float>& direction) {
  if (layer < 0 || layer >= shape_.n_layer) throw std::invalid_argument("no such layer");
  if (direction.shape(0) != std::size_t(shape_.n_embd)) throw std::invalid_argument("a direction has n_embd numbers");
  return vector_of(shape_.n_embd, [&](float* out) { model_->pull_back(layer, direction.data(), out); });
}

std::vector<std::vector<double>> Engine::stop_meters() {
  const Turn turn = take_turn();
  std::vector<std::vector<double>> seconds;
  for (const Meter& meter : model_->stop_meters()) {
    std::vector<double>& parts = seconds.emplace_back();
    for (int part = 0; part < kParts; ++part) parts.push_back(meter.seconds(part));
  }
  return seconds;
}

void bind_inspection(nb::class_<Engine>& engine) {
  engine.def("edit_sequence", &Engine::edit_sequence)
      .def("record", &Engine::record)
      .def("unembed", &Engine::unembed)
      .def("compare", &Engine::compare)
      .def("embedding_lengths", &Engine::embedding_lengths)
      .def("token_row", &Engine::token_row)
      .def("pull_back", &Engine::pull_back)
      .def("start_meters", &Engine::start_meters)
      .def("stop_meters", &Engine::stop_meters);
}

}  // namespace gpt2lab
