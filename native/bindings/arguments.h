// The code that the bindings share: types of array arguments, and checks of arguments.
//
// Only this folder knows Python. It checks every argument, then passes plain arrays to the core with the GIL released.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <span>
#include <stdexcept>
#include <string>

namespace gpt2lab {

namespace nb = nanobind;

template <typename T>
using Array1 = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array2 = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Array>
auto span_of(const Array& a) {
  return std::span(a.data(), a.size());
}

inline int checked_threads(int threads) {
  if (threads < 1 || threads > 1024)
    throw std::invalid_argument("threads must be from 1 to 1024, got " + std::to_string(threads));
  return threads;
}

// Add the classes Engine and TrainingCore to the module.
void bind_engine(nb::module_& m);
void bind_training(nb::module_& m);

}  // namespace gpt2lab
