// The module's class TrainingCore: the computations of training on Python's arrays.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "arguments.h"
#include "causal_attention.h"
#include "exit_gate.h"
#include "instruction_set.h"
#include "layer_norm.h"
#include "matmul.h"
#include "tile_attention.h"
#include "tile_matmul.h"

namespace gpt2lab {
namespace {

// Matmul, CausalAttention, LayerNorm and GELU for arrays. Several Python threads may call it: calls take turns.
class TrainingCore {
 public:
  using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
  using Result = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
  using Queries = nb::ndarray<float, nb::ndim<5>, nb::c_contig, nb::device::cpu>;
  using Outputs = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
  using Rows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  using Vector = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  using LogSums = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

  // Arrays of float32 or bfloat16.
  using Either = nb::ndarray<nb::ndim<2>, nb::device::cpu>;
  using Rounded = nb::ndarray<nb::ndim<5>, nb::c_contig, nb::device::cpu>;
  using RoundedOutputs = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;
  using Targets = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

  TrainingCore(int threads, const std::string& instruction_set)
      : kernels_(choose_kernels(instruction_set)), tiles_(tile_kernels(kernels_)), pool_(checked_threads(threads)),
        matmul_(kernels_, pool_), attention_(kernels_, pool_), norm_(kernels_, pool_) {
    if (!tiles_) return;
    tile_matmul_.emplace(*tiles_, pool_);
    tile_attention_.emplace(kernels_, *tiles_, pool_);
  }

  // Whether the methods for bfloat16 work.
  bool has_tiles() const { return tiles_; }

  // See causal_attention.h; log_sums [batch, n_head, time].
  void attend(const Queries& qkv, const Outputs& out, const LogSums& log_sums, std::optional<float> scale) {
    const AttentionShape shape = checked_shape_of(qkv, out, log_sums, scale);
    const Turn turn(mutex_);
    attention_.forward(shape, qkv.data(), out.data(), log_sums.data());
  }

  void attend_backward(const Queries& qkv, const LogSums& log_sums, const Outputs& d_out, const Queries& d_qkv,
                       std::optional<float> scale) {
    const AttentionShape shape = checked_shape_of(qkv, d_out, log_sums, scale);
    check_gradient(d_qkv, qkv);
    const Turn turn(mutex_);
    attention_.backward(shape, qkv.data(), log_sums.data(), d_out.data(), d_qkv.data());
  }

  // Computes out = d · gelu'(x); all have the same size, and out may be x or d.
  void gelu_gradient(const Matrix& x, const Matrix& d, const Result& out) {
    check_gradient(d, x);
    check_gradient(out, x);
    const std::size_t rows = x.shape(0), columns = x.shape(1);
    if (columns > INT_MAX) throw std::invalid_argument("rows are too long");
    for (const std::int64_t stride : {x.stride(1), d.stride(1), out.stride(1)})
      if (stride != 1) throw std::invalid_argument("numbers of a row must lie together");
    if (out.stride(0) < std::int64_t(columns)) throw std::invalid_argument("out must have whole rows");
    const Turn turn(mutex_);
    pool_.run([&](int thread) {
      const std::size_t end = rows * (thread + 1) / pool_.size();
      for (std::size_t row = rows * thread / pool_.size(); row < end; ++row)
        kernels_.gelu_gradient(x.data() + row * x.stride(0), d.data() + row * d.stride(0), int(columns),
                               out.data() + row * out.stride(0));
    });
  }

  // See layer_norm.h.
  void layer_norm(const Rows& x, const Array1<float>& gain, const Array1<float>& bias, float epsilon, const Rows& out) {
    const auto [rows, n] = checked_shape_of(x, out, {gain.shape(0), bias.shape(0)});
    const Turn turn(mutex_);
    norm_.forward(x.data(), gain.data(), bias.data(), epsilon, rows, n, out.data());
  }

  void layer_norm_gradient(const Rows& x, const Array1<float>& gain, float epsilon, const Rows& d, const Vector& d_gain,
                           const Vector& d_bias) {
    const auto [rows, n] = checked_shape_of(x, d, {gain.shape(0), d_gain.shape(0), d_bias.shape(0)});
    const Turn turn(mutex_);
    norm_.backward(x.data(), gain.data(), epsilon, rows, n, d.data(), d_gain.data(), d_bias.data());
  }

  // Computes out[m, n] = a[m, k] · b[k, n] + bias[n], or out += a · b, with gelu(a) in place of a if `gelu`.
  void multiply(const Matrix& a, const Matrix& b, const Result& out, const std::optional<Array1<float>>& bias, bool add,
                bool gelu) {
    const auto [m, n, k] = checked_sizes(a, b, out, bias);
    if (bias && add) throw std::invalid_argument("there is no bias where products are added");
    if (out.stride(1) != 1 || out.stride(0) < std::int64_t(n)) throw std::invalid_argument("out must have whole rows");
    const MatrixView left = view(a), right = view(b);
    const Turn turn(mutex_);
    const Terms terms{bias ? bias->data() : nullptr, add, gelu};
    matmul_.run(left, right, terms, out.data(), out.stride(0), int(m), int(n), int(k));
  }

  // Computes out[m, n] = a[m, k] · b[k, n] + bias[n] (+ before[m, n]) in bfloat16, with gelu(a) in place of a if
  // `gelu`.
  void multiply_tiles(const Either& a, const Either& b, const Either& out, const std::optional<Array1<float>>& bias,
                      const std::optional<Matrix>& before, bool gelu) {
    check_tiles();
    const auto [m, n, k] = checked_sizes(a, b, out, bias);
    if (before && (before->shape(0) != m || before->shape(1) != n || before->stride(1) != 1 ||
                   before->stride(0) < std::int64_t(n)))
      throw std::invalid_argument("the matrix that products are added to must have whole rows, and the result's shape");
    TileTerms terms{bias ? bias->data() : nullptr, nullptr, 0, gelu};
    if (before) terms.before = before->data(), terms.before_row = before->stride(0);
    const Lines left = lines(a, a.stride(0), a.stride(1)), right = lines(b, b.stride(1), b.stride(0));
    const ResultRows rows{out.data(), is_wide(out), row_distance(out)};
    const Turn turn(mutex_);
    tile_matmul_->run(left, right, terms, rows, int(m), int(n), int(k));
  }

  // See causal_attention.h.
  void attend_tiles(const Rounded& qkv, const RoundedOutputs& out, const LogSums& log_sums,
                    std::optional<float> scale) {
    check_tiles();
    const AttentionShape shape = checked_shape_of(qkv, out, log_sums, scale);
    auto *from = rounded(qkv), *to = rounded(out);
    const Turn turn(mutex_);
    tile_attention_->forward(shape, from, to, log_sums.data());
  }

  void attend_tiles_backward(const Rounded& qkv, const LogSums& log_sums, const RoundedOutputs& d_out,
                             const Rounded& d_qkv, std::optional<float> scale) {
    check_tiles();
    const AttentionShape shape = checked_shape_of(qkv, d_out, log_sums, scale);
    check_gradient(d_qkv, qkv);
    auto *from = rounded(qkv), *d = rounded(d_out), *to = rounded(d_qkv);
    const Turn turn(mutex_);
    tile_attention_->backward(shape, from, log_sums.data(), d, to);
  }

  // Computes x = d · gelu'(x), all in bfloat16.
  void gelu_gradient_tiles(const Either& x, const Either& d) {
    check_tiles();
    check_gradient(d, x);
    const std::size_t rows = x.shape(0), columns = x.shape(1), x_row = row_distance(x), d_row = row_distance(d);
    if (columns > INT_MAX) throw std::invalid_argument("rows are too long");
    auto *values = rounded(x), *gradients = rounded(d);
    const Turn turn(mutex_);
    pool_.run([&](int thread) {
      const std::size_t end = rows * (thread + 1) / pool_.size();
      for (std::size_t row = rows * thread / pool_.size(); row < end; ++row)
        tiles_->gelu_gradient(values + row * x_row, gradients + row * d_row, int(columns), values + row * x_row);
    });
  }

  // Writes the sums of x's columns.
  void sum_rows(const Either& x, const Vector& sums) {
    check_tiles();
    const std::size_t rows = x.shape(0), n = x.shape(1), row = row_distance(x), size = is_wide(x) ? 4 : 2;
    if (rows > INT_MAX || n > INT_MAX || sums.shape(0) != n)
      throw std::invalid_argument("there must be a sum per column");
    const Turn turn(mutex_);
    pool_.run([&](int thread) {
      constexpr std::size_t kUnit = 64;  // whole cache lines
      const std::size_t units = (n + kUnit - 1) / kUnit, begin = units * thread / pool_.size() * kUnit;
      const std::size_t end = std::min(n, units * (thread + 1) / pool_.size() * kUnit);
      if (begin >= end) return;
      std::fill(sums.data() + begin, sums.data() + end, 0.0f);
      tiles_->add_rows(static_cast<const char*>(x.data()) + begin * size, is_wide(x), row, int(rows), int(end - begin),
                       sums.data() + begin);
    });
  }

  // Writes the losses of rows of logits, and turns these, in bfloat16, into their gradients.
  void cross_entropy(const Either& logits, const Targets& targets, const Vector& losses) {
    check_tiles();
    const std::size_t rows = logits.shape(0), n = logits.shape(1), row = row_distance(logits);
    if (rows != targets.shape(0) || rows != losses.shape(0) || n < 1 || n > INT_MAX)
      throw std::invalid_argument("there must be a target and a loss per row of logits");
    for (std::size_t i = 0; i < rows; ++i)
      if (targets.data()[i] < 0 || targets.data()[i] >= std::int64_t(n))
        throw std::invalid_argument("a target is not among the logits");
    auto* x = rounded(logits);
    const Turn turn(mutex_);
    pool_.run([&](int thread) {
      const std::size_t end = rows * (thread + 1) / pool_.size();
      for (std::size_t i = rows * thread / pool_.size(); i < end; ++i)
        losses.data()[i] = tiles_->cross_entropy(x + i * row, int(n), targets.data()[i]);
    });
  }

  // As in engine.cpp: calls around a fork, by the thread that forks.
  void before_fork() {
    nb::gil_scoped_release release;
    mutex_.lock();
  }
  void after_fork() { mutex_.unlock(); }

 private:
  struct Sizes {
    std::size_t m, n, k;
  };

  // Returns the sizes of out[m, n] = a[m, k] · b[k, n] + bias[n].
  static Sizes checked_sizes(const auto& a, const auto& b, const auto& out, const std::optional<Array1<float>>& bias) {
    constexpr std::size_t kMost = 1 << 30;
    const Sizes sizes{a.shape(0), b.shape(1), a.shape(1)};
    const auto& [m, n, k] = sizes;
    if (b.shape(0) != k || out.shape(0) != m || out.shape(1) != n || (bias && bias->shape(0) != n))
      throw std::invalid_argument("shapes of the matrices do not fit");
    if (m < 1 || n < 1 || k < 1 || m > kMost || n > kMost || k > kMost)
      throw std::invalid_argument("matrices must have from 1 to 2^30 rows and columns");
    return sizes;
  }

  // Exclusive use of the core, without the GIL. The members' order matters: the interpreter must not end before this
  // thread has its GIL back.
  struct Turn {
    explicit Turn(std::mutex& mutex) : lock(mutex) {}
    ExitGate::Visit visit;
    nb::gil_scoped_release release;
    std::lock_guard<std::mutex> lock;
  };

  void check_tiles() const {
    if (!tiles_) throw std::invalid_argument("products in bfloat16 need a matrix unit");
  }

  template <typename A>
  static bool is_wide(const A& x) {
    if (x.dtype() == nb::dtype<float>()) return true;
    constexpr nb::dlpack::dtype kBFloat16{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1};
    if (x.dtype() == kBFloat16) return false;
    throw std::invalid_argument("numbers must be float32 or bfloat16");
  }

  template <typename A>
  static BFloat16* rounded(const A& x) {
    if (is_wide(x)) throw std::invalid_argument("numbers must be bfloat16");
    return static_cast<BFloat16*>(x.data());
  }

  static std::size_t row_distance(const Either& x) {
    if (x.stride(1) != 1 || x.stride(0) < std::int64_t(x.shape(1)))
      throw std::invalid_argument("numbers of a row must lie together");
    return std::size_t(x.stride(0));
  }

  static Lines lines(const Either& x, std::int64_t line, std::int64_t step) {
    if (line < 1 || step < 1 || (line != 1 && step != 1))
      throw std::invalid_argument("rows or columns of a matrix must lie together");
    return {x.data(), is_wide(x), std::size_t(line), std::size_t(step)};
  }

  // Throws unless two arrays with the same number of dimensions have the same shape.
  template <typename A, typename B>
  static void check_gradient(const A& gradient, const B& x) {
    for (std::size_t axis = 0; axis < x.ndim(); ++axis)
      if (gradient.shape(axis) != x.shape(axis))
        throw std::invalid_argument("a gradient has the shape of what it is of");
  }

  static MatrixView view(const Matrix& x) {
    if (x.stride(0) < 1 || x.stride(1) < 1 || (x.stride(0) != 1 && x.stride(1) != 1))
      throw std::invalid_argument("rows or columns of a matrix must lie together");
    return {x.data(), std::size_t(x.stride(0)), std::size_t(x.stride(1))};
  }

  // Checks a layer norm's arguments and returns the rows and columns of its matrices.
  static std::pair<int, int> checked_shape_of(const Rows& x, const Rows& other,
                                              std::initializer_list<std::size_t> vectors) {
    const std::size_t rows = x.shape(0), n = x.shape(1);
    if (rows < 1 || n < 1 || rows > INT_MAX || n > INT_MAX)
      throw std::invalid_argument("matrices must have from 1 to 2^31 - 1 rows and columns");
    if (other.shape(0) != rows || other.shape(1) != n) throw std::invalid_argument("both matrices must have one shape");
    for (const std::size_t length : vectors)
      if (length != n) throw std::invalid_argument("vectors must be as long as a row");
    return {int(rows), int(n)};
  }

  template <typename Q, typename O>
  static AttentionShape checked_shape_of(const Q& qkv, const O& out, const LogSums& log_sums,
                                         std::optional<float> scale) {
    const std::size_t batch = qkv.shape(0), time = qkv.shape(1), n_head = qkv.shape(3), head_dim = qkv.shape(4);
    constexpr std::size_t kMost = 1 << 20;
    if (qkv.shape(2) != 3 || out.shape(0) != batch || out.shape(1) != time || out.shape(2) != n_head ||
        out.shape(3) != head_dim || log_sums.shape(0) != batch || log_sums.shape(1) != n_head ||
        log_sums.shape(2) != time)
      throw std::invalid_argument("shapes of queries, results and sums do not fit");
    for (const std::size_t size : {batch, time, n_head, head_dim})
      if (size < 1 || size > kMost) throw std::invalid_argument("sizes of attention must be from 1 to 2^20");
    if (batch * n_head > kMost) throw std::invalid_argument("there must be no more than 2^20 heads in all");
    AttentionShape shape{int(batch), int(time), int(n_head), int(head_dim)};
    if (scale) shape.scale = *scale;
    return shape;
  }

  const Kernels& kernels_;
  const TileKernels* tiles_;  // null without a matrix unit
  ThreadPool pool_;
  Matmul matmul_;
  CausalAttention attention_;
  LayerNorm norm_;
  std::optional<TileMatmul> tile_matmul_;
  std::optional<TileAttention> tile_attention_;
  std::mutex mutex_;
};

}  // namespace

void bind_training(nb::module_& m) {
  nb::class_<TrainingCore>(m, "TrainingCore", nb::is_weak_referenceable())
      .def(nb::init<int, const std::string&>(), nb::arg("threads"), nb::arg("instruction_set"))
      .def("multiply", &TrainingCore::multiply, nb::arg("a").noconvert(), nb::arg("b").noconvert(),
           nb::arg("out").noconvert(), nb::arg("bias").noconvert() = nb::none(), nb::arg("add") = false,
           nb::arg("gelu") = false)
      .def("gelu_gradient", &TrainingCore::gelu_gradient, nb::arg("x").noconvert(), nb::arg("d").noconvert(),
           nb::arg("out").noconvert())
      .def("layer_norm", &TrainingCore::layer_norm, nb::arg("x").noconvert(), nb::arg("gain").noconvert(),
           nb::arg("bias").noconvert(), nb::arg("epsilon"), nb::arg("out").noconvert())
      .def("layer_norm_gradient", &TrainingCore::layer_norm_gradient, nb::arg("x").noconvert(),
           nb::arg("gain").noconvert(), nb::arg("epsilon"), nb::arg("d").noconvert(), nb::arg("d_gain").noconvert(),
           nb::arg("d_bias").noconvert())
      .def("attend", &TrainingCore::attend, nb::arg("qkv").noconvert(), nb::arg("out").noconvert(),
           nb::arg("log_sums").noconvert(), nb::arg("scale") = nb::none())
      .def("attend_backward", &TrainingCore::attend_backward, nb::arg("qkv").noconvert(),
           nb::arg("log_sums").noconvert(), nb::arg("d_out").noconvert(), nb::arg("d_qkv").noconvert(),
           nb::arg("scale") = nb::none())
      .def_prop_ro("has_tiles", &TrainingCore::has_tiles)
      .def("multiply_tiles", &TrainingCore::multiply_tiles, nb::arg("a").noconvert(), nb::arg("b").noconvert(),
           nb::arg("out").noconvert(), nb::arg("bias").noconvert() = nb::none(),
           nb::arg("before").noconvert() = nb::none(), nb::arg("gelu") = false)
      .def("attend_tiles", &TrainingCore::attend_tiles, nb::arg("qkv").noconvert(), nb::arg("out").noconvert(),
           nb::arg("log_sums").noconvert(), nb::arg("scale") = nb::none())
      .def("attend_tiles_backward", &TrainingCore::attend_tiles_backward, nb::arg("qkv").noconvert(),
           nb::arg("log_sums").noconvert(), nb::arg("d_out").noconvert(), nb::arg("d_qkv").noconvert(),
           nb::arg("scale") = nb::none())
      .def("gelu_gradient_tiles", &TrainingCore::gelu_gradient_tiles, nb::arg("x").noconvert(),
           nb::arg("d").noconvert())
      .def("sum_rows", &TrainingCore::sum_rows, nb::arg("x").noconvert(), nb::arg("sums").noconvert())
      .def("cross_entropy", &TrainingCore::cross_entropy, nb::arg("logits").noconvert(), nb::arg("targets").noconvert(),
           nb::arg("losses").noconvert())
      .def("before_fork", &TrainingCore::before_fork)
      .def("after_fork", &TrainingCore::after_fork);
}

}  // namespace gpt2lab
