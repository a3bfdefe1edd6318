// The functions and constants of the module gpt2lab._native; engine.cpp and training.cpp add its classes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <vector>

#include "arguments.h"
#include "exit_gate.h"
#include "instruction_set.h"
#include "kernels.h"
#include "packing.h"
#include "philox.h"
#include "weights.h"

namespace gpt2lab {
namespace {

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
  return names;
}

std::uint64_t checksum_of(const Array1<std::uint8_t>& bytes) {
  const ExitGate::Visit visit;  // outlives `release`: the interpreter must not end before this thread has its GIL back
  nb::gil_scoped_release release;
  return checksum(bytes.data(), bytes.shape(0));
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // an engine that lives until the interpreter ends is not a mistake
  nb::module_::import_("atexit").attr("register")(nb::cpp_function([] {
    nb::gil_scoped_release release;
    exit_gate.close();
  }));
  m.attr("PACKED_LAYOUT") = kPackedLayout;
  m.attr("KV_BLOCK_TOKENS") = kTile;
  m.def("instruction_sets", &instruction_sets, "Names of the kernels that this CPU can run, fastest first.");
  m.def("cpu_vendor", &cpu_vendor, "What the CPU says of its maker; empty elsewhere than on x86-64.");
  m.def("checksum", &checksum_of, "A checksum of 64 bits, against damage and not against malice.");
  m.def("philox_uniform", &philox_uniform, nb::arg("seed"), nb::arg("stream"), nb::arg("position"));
  bind_training(m);
  bind_engine(m);
}

}  // namespace gpt2lab
