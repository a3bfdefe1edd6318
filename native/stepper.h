// One step of many sequences: it takes tokens and returns the tokens drawn after them; the logits never leave it.
//
// The stepper knows nothing of text or of when a sequence ends.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.h"
#include "sampler.h"
#include "thread_pool.h"
#include "transformer.h"

namespace gpt2lab {

// Draws from consecutive rows of logits of one sequence. The chain goes on while each draw gives the guessed token.
struct Chain {
  Draw first;                             // first draw; the later ones have later positions and longer histories
  int count = 0;                          // number of rows; may be 0
  const std::int32_t* guesses = nullptr;  // [count - 1] tokens
  DrawResult* results = nullptr;          // [count]
  TopTokens top;                          // the first draw's; there is room for `count` of them
  int drawn = 0;                          // number of results written; the last one may have failed
  bool ended = false;
};

class Stepper {
 public:
  Stepper(Transformer& model, const Kernels& kernels, ThreadPool& pool, int n_vocab);

  // Runs feeds[i], checked as Transformer::forward requires, and draws chains[i] from the logits of its last tokens.
  // Returns false if a draw failed. Every sequence is then as it was before the call, and also if the call throws for
  // lack of memory or threads.
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
  // The work of one forward pass.
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
