// The choice of kernels that this CPU can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"
#include "tile_kernels.h"

namespace gpt2lab {

// Returns every set of kernels that this build has and this CPU runs, fastest first. Choose one before you use it.
std::vector<const Kernels*> available_kernels();

// Returns the kernels named `name`, or the fastest if `name` is empty, ready for all threads of the process. Throws
// std::invalid_argument if no available kernels have that name.
const Kernels& choose_kernels(const std::string& name);

// Returns the kernels of the matrix unit that `kernels` use; null if they use none.
const TileKernels* tile_kernels(const Kernels& kernels);

// Returns the CPU's vendor string, such as "GenuineIntel"; empty except on x86-64.
std::string cpu_vendor();

}  // namespace gpt2lab
