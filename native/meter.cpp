#include "meter.h"

namespace gpt2lab {

Part Meter::enter(Part part) {
  const Clock::time_point now = Clock::now();
  nanoseconds_[int(part_)] += std::chrono::duration_cast<std::chrono::nanoseconds>(now - since_).count();
  since_ = now;
  const Part before = part_;
  part_ = part;
  return before;
}

}  // namespace gpt2lab
