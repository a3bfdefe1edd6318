// All weights of a model in one piece of memory: matrices packed in one precision, everything else float32.
//
// The place of each tensor depends on shape and precision alone, so the piece can be saved and read back unchanged, and
// no kernel reads outside it, whatever bytes it holds.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "memory.h"
#include "packing.h"
#include "thread_pool.h"

namespace gpt2lab {

// The shape of a GPT-2, and the switches of its family, with the original's values as defaults.
struct Shape {
  int n_vocab, n_ctx, n_embd, n_head, n_layer;
  int n_inner = 4 * n_embd;
  Activation activation = Activation::gelu_new;
  float epsilon = 1e-5f;         // of layer norms
  bool scaled = true;            // attention's scores are divided by sqrt(head_dim)
  bool scaled_by_layer = false;  // and by the layer's number, counted from 1
  bool tied = true;              // the output matrix is wte

  int head_dim() const { return n_embd / n_head; }
  // Returns the factor of attention's scores in a layer, counted from 0, times log2 e: attention weighs powers of two.
  float score_scale(int layer) const {
    const float scale = scaled ? 1.0f / std::sqrt(float(head_dim())) : 1.0f;
    return (scaled_by_layer ? scale / float(layer + 1) : scale) * kLog2E;
  }
};

struct Norm {
  const float *gain, *bias;  // [n_embd]
};

struct Linear {
  PackedMatrix weight;
  const float* bias;  // [n], padded with zeros to whole tiles
};

struct Layer {
  Norm ln_1, ln_2;
  Linear attn_qkv, attn_proj, mlp_fc, mlp_proj;
};

class Weights {
 public:
  Weights(const Shape& shape, Precision precision);

  Precision precision() const { return precision_; }
  PackedMatrix wte() const { return wte_; }    // k = n_embd, n = n_vocab
  PackedMatrix head() const { return head_; }  // the output matrix, of the same shape; wte itself if they are tied
  const float* wpe() const { return wpe_; }    // [n_ctx, n_embd]
  const Layer& layer(int i) const { return layers_[i]; }
  const Norm& ln_f() const { return ln_f_; }

  // Returns the memory of all weights.
  Array<std::byte>& memory() { return memory_; }

  // A tensor under its name in checkpoints, in its canonical shape: [rows, columns], or [columns] if rows is 0.
  struct Tensor {
    std::string name;
    int rows, columns;
    PackedMatrix matrix;  // without tiles if the tensor is not a matrix
    float* values;        // the numbers of a tensor that is not a matrix
    bool set = false;
  };
  // Returns the tensor of that name, or null.
  Tensor* find(const std::string& name);

  // Converts `source` into the tensor's place. If a value is not finite in the precision, the tensor stays unset and
  // the result is false.
  bool set(Tensor& tensor, const float* source, ThreadPool& pool);

  // Copies a matrix of int8 or int4 into its place; false if a number is out of range.
  bool set(Tensor& tensor, const Integers& source, ThreadPool& pool);

  void mark_all_set();
  bool complete() const { return missing_ == 0; }

 private:
  void place(std::byte* memory);
  float* place_vector(const std::string& name, int rows, int columns);
  Linear place_linear(const std::string& name, int k, int n);
  Norm place_norm(const std::string& name);
  PackedMatrix place_matrix(const std::string& name, int rows, int columns, int k, int n);
  void mark_set(Tensor& tensor);
  std::byte* take(std::size_t bytes);

  Shape shape_;
  Precision precision_;
  Array<std::byte> memory_;
  std::byte* next_ = nullptr;  // the next free place, while tensors are being placed
  std::size_t used_ = 0;
  std::size_t missing_ = 0;
  std::vector<Tensor> tensors_;
  PackedMatrix wte_, head_;
  const float* wpe_ = nullptr;
  std::vector<Layer> layers_;
  Norm ln_f_{};
};

// Returns a checksum of `size` bytes, at the speed of memory.
std::uint64_t checksum(const void* bytes, std::size_t size);

}  // namespace gpt2lab
