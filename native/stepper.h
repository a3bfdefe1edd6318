// One step of many sequences: tokens in, tokens drawn behind them out; the logits between the two stay here.
//
// Knows nothing of text or of when a sequence ends.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.h"
#include "sampler.h"
#include "thread_pool.h"
#include "transformer.h"

namespace gpt2lab {

// Draws from consecutive rows of logits of one sequence, each as long as the one before has drawn what was guessed.
struct Chain {
  Draw first;                             // of the draws; those after it have later positions and longer histories
  int count = 0;                          // rows; may be 0
  const std::int32_t* guesses = nullptr;  // [count - 1] tokens
  DrawResult* results = nullptr;          // [count]
  TopTokens top;                          // of the first draw; room for `count` of them
  int drawn = 0;                          // results that were written; the last one may have failed
  bool ended = false;
};

class Stepper {
 public:
  Stepper(Transformer& model, const Kernels& kernels, ThreadPool& pool, int n_vocab);

  // Runs feeds[i], checked as Transformer::forward wants them, and draws chains[i] from the logits of its last tokens.
  // Returns true, or false if a draw failed. Then, and if it throws for want of memory or threads, every sequence is as
  // it was.
  bool step(const std::vector<Feed>& feeds, std::vector<Chain>& chains);

  // Draws one token from each row of logits [draws, n_vocab].
  std::vector<DrawResult> draw(const float* logits, const std::vector<Draw>& draws);

 private:
  // The rows of a chain whose logits are known.
  struct Part {
    Chain* chain;
    const float* logits;
    int rows;
  };
  // What one forward pass does.
  struct Pass {
    std::vector<Feed> feeds;
    std::vector<Part> parts;
    int rows = 0;
  };

  bool run(const std::vector<Feed>& feeds, std::vector<Chain>& chains);
  bool run(Pass& pass);
  void draw_parts(const std::vector<Part>& parts);
  void draw_part(const Part& part, Sampler& sampler) const;

  Transformer& model_;
  ThreadPool& pool_;
  int n_vocab_;
  std::vector<Sampler> samplers_;  // one per thread
  FloatArray logits_;
};

}  // namespace gpt2lab
