#include "own_cores.h"

#if defined(__linux__)

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <string>
#include <utility>

namespace gpt2lab {
namespace {

// Names the core to which a hyper-thread belongs.
std::string core_of(int cpu) {
  const std::string number = std::to_string(cpu);
  std::ifstream file("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
  std::string siblings;
  return std::getline(file, siblings) ? siblings : number;
}

}  // namespace

OwnCores::OwnCores(int threads) : OwnCores() {
  if (sched_getaffinity(0, sizeof all_, &all_) != 0) return;
  std::vector<std::string> names;
  std::vector<cpu_set_t> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all_)) continue;
    const std::string name = core_of(cpu);
    const auto place = std::size_t(std::find(names.begin(), names.end(), name) - names.begin());
    if (place == names.size()) {
      names.push_back(name);
      CPU_ZERO(&cores.emplace_back());
    }
    CPU_SET(cpu, &cores[place]);
  }
  if (cores.size() == std::size_t(threads)) cores_ = std::move(cores);
}

void OwnCores::keep(int thread) const {
  if (!cores_.empty()) sched_setaffinity(0, sizeof(cpu_set_t), &cores_[thread]);
}

OwnCores::Visit::Visit(const OwnCores& cores) {
  if (cores.cores_.empty()) return;
  cpu_set_t now;
  if (sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &cores.all_)) return;
  cores_ = &cores;
  cores.keep(0);
}

OwnCores::Visit::~Visit() {
  cpu_set_t now;
  if (!cores_ || sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &cores_->cores_[0])) return;
  sched_setaffinity(0, sizeof(cpu_set_t), &cores_->all_);
}

}  // namespace gpt2lab

#endif
