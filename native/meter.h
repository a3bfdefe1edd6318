// Measures the time that one thread spends in each part of a forward pass.
#pragma once

#include <chrono>
#include <cstdint>

namespace gpt2lab {

enum class Part { other, norms, inputs, products, unpacking, finishing, cache, attention, head, waiting };
constexpr const char* kPartNames[] = {"other",     "norms", "inputs",    "products", "unpacking",
                                      "finishing", "cache", "attention", "head",     "waiting"};
constexpr int kParts = sizeof kPartNames / sizeof *kPartNames;

class Meter {
 public:
  Meter() : since_(Clock::now()) {}

  // Ends the part so far, begins another one, and returns the former.
  Part enter(Part part);
  double seconds(int part) const { return 1e-9 * double(nanoseconds_[part]); }

 private:
  using Clock = std::chrono::steady_clock;
  Part part_ = Part::other;
  Clock::time_point since_;
  std::int64_t nanoseconds_[kParts] = {};
};

}  // namespace gpt2lab
