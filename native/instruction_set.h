// Which kernels this CPU can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace gpt2lab {

// Every set of kernels that this build has and this CPU runs, fastest first. To use one, choose it.
std::vector<const Kernels*> available_kernels();

// The fastest of them, or the one named `name` if it is not empty, ready to be used by all threads of the process.
// Throws std::invalid_argument if there is none so named.
const Kernels& choose_kernels(const std::string& name);

// What the CPU says of its maker, such as "GenuineIntel"; empty elsewhere than on x86-64.
std::string cpu_vendor();

}  // namespace gpt2lab
