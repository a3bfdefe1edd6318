#include "instruction_set.h"

#include <stdexcept>

namespace gpt2lab {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#ifdef GPT2LAB_X86_KERNELS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512_kernels());
  if (avx2) found.push_back(&avx2_kernels());
#endif
  found.push_back(&baseline_kernels());
  return found;
}

const Kernels& choose_kernels(const std::string& name) {
  const auto available = available_kernels();
  if (name.empty()) return *available.front();
  std::string names;
  for (const Kernels* kernels : available) {
    if (name == kernels->name) return *kernels;
    names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
  }
  throw std::invalid_argument("no instruction set '" + name + "' on this machine; it has " + names);
}

}  // namespace gpt2lab
