#include "hooks.h"

#include <cstring>
#include <utility>

namespace gpt2lab {

void Edit::apply(int position, float* x) const {
  const int row = count > 0 ? position - first : 0;
  if (position < first || (count > 0 && row >= count)) return;
  const float* from = values.data() + std::size_t(row) * width;
  if (add)
    for (int i = 0; i < width; ++i) x[column + i] += from[i];
  else std::memcpy(x + column, from, std::size_t(width) * sizeof(float));
}

void Hooks::set(int sequence, Edits edits) {
  if (edits.empty()) erase(sequence);
  else edits_[sequence] = std::make_shared<const Edits>(std::move(edits));
}

void Hooks::copy(int from, int to) {
  if (const auto found = edits_.find(from); found != edits_.end()) {
    const auto edits = found->second;  // inserting may invalidate `found`
    edits_[to] = edits;
  }
}

const Edits* Hooks::of(int sequence) const {
  const auto found = edits_.find(sequence);
  return found == edits_.end() ? nullptr : found->second.get();
}

}  // namespace gpt2lab
