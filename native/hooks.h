// Places in the forward pass where activations can be read and changed.
//
// The sites have TransformerLens' names. A change belongs to a sequence and holds for every token fed to it from then
// on. A pass without changes or recording does nothing here.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

namespace gpt2lab {

// resid_pre is the residual stream before a layer (of layer n_layer: at the end), q the queries, z the mixed values of
// the heads side by side, attn_out and mlp_out what attention and MLP add to the stream, resid_mid the stream between.
enum class Site : int { resid_pre, q, z, attn_out, resid_mid, mlp_out };
constexpr int kSites = 6;

// Sets or adds to some columns at one site, in one layer.
struct Edit {
  Site site;
  int layer;
  bool add;
  int column, width;
  int first, count;           // positions; a count of 0: every position from `first` on, with one row of values
  std::vector<float> values;  // [max(1, count), width]

  // Changes `x`, the site's numbers at `position`.
  void apply(int position, float* x) const;
};
using Edits = std::vector<Edit>;

// Memory for the activations of every row of a call at some sites, each [layers, rows, n_embd] from `first_layer` on.
struct Recording {
  std::array<float*, kSites> sites{};  // null: not recorded
  int first_layer = 0;
  std::size_t rows = 0;
};

// The changes of each sequence that has any.
class Hooks {
 public:
  void set(int sequence, Edits edits);
  void copy(int from, int to);
  void erase(int sequence) { edits_.erase(sequence); }
  bool empty() const { return edits_.empty(); }
  // Returns null for a sequence without changes.
  const Edits* of(int sequence) const;

 private:
  std::unordered_map<int, std::shared_ptr<const Edits>> edits_;
};

}  // namespace gpt2lab
