// Attention over packed keys and values, whatever their format; included by the formats' files only.
//
// A format's file rounds queries, turns them and a span's keys into scores, weighs these, and mixes values. This file
// sets the order: spans of kSpan positions; in each, the blocks that all rows share, and then every row's own. Rows of
// a prompt that do not see a shared block are computed with it anyway, with probabilities of zero.
#pragma once

#include "attention.inl"
#include "packed_block.h"

namespace gpt2lab {
namespace {

// A row's blocks from the start of a span on.
struct PackedRun {
  const std::byte *const *blocks, *const *ahead;
  std::size_t offset, ahead_offset;

  PackedRun(const PackedAttention& a, int row, int first)
      : blocks(a.rows[row].blocks + first), ahead(a.rows[row].ahead + first), offset(a.offset),
        ahead_offset(a.ahead_offset) {}
  const char* at(int block) const { return reinterpret_cast<const char*>(blocks[block] + offset); }
  const char* next(int block) const { return reinterpret_cast<const char*>(ahead[block] + ahead_offset); }
};

// What a row sees of a span.
struct PackedSpan {
  int seen = 0;      // positions
  int blocks = 0;    // those that it sees, or that are computed for all rows
  float factor = 1;  // of its sums so far
};

// Adds the sums of a span, sums(column), to a row's sums so far times `span.factor`, or to zero if `begins`. If `ends`,
// writes the result, times `norm`, to the row's `out`.
template <typename F>
inline void add_span(const PackedAttention& a, int row, int stride, float* so_far, const PackedSpan& span, bool begins,
                     bool ends, float norm, F&& sums) {
  for (int column = 0; column < stride; column += kWidth) {
    const Vec before = begins ? Vec{} : load(so_far + column) * splat(span.factor);
    const Vec y = before + sums(column);
    if (ends) store_some(a.rows[row].out + column, a.head_dim - column, y * splat(norm));
    else store(so_far + column, y);
  }
}

// Computes attention. `Rows`, for which each step has an overload, holds a call and its scratch memory in a format.
template <typename Rows>
void attend_packed(const PackedAttention& a) {
  const Rows rows(a);
  Softmax softmax[kRowGroup];
  int end = 0;
  for (int r = 0; r < a.m; ++r) {
    end = a.rows[r].position + 1 > end ? a.rows[r].position + 1 : end;
    round_query(rows, r);
  }
  for (int first = 0; first < end; first += kSpan) {
    const int block = first / kTile, rest = a.shared - block;
    const int shared = rest < 0 ? 0 : rest < kSpan / kTile ? rest : kSpan / kTile;
    const PackedRun common(a, 0, block);
    if (shared > 0) score_shared(rows, common, shared);
    PackedSpan spans[kRowGroup];
    for (int r = 0; r < a.m; ++r) {
      const int left = a.rows[r].position + 1 - first;
      if (left <= 0) continue;
      PackedSpan& span = spans[r];
      span.seen = left < kSpan ? left : kSpan;
      const int own = (span.seen + kTile - 1) / kTile;
      span.blocks = own > shared ? own : shared;
      const PackedRun run(a, r, block);
      if (own > shared) score_own(rows, r, run, shared, own);
      weigh(rows, r, run, softmax[r], span);
    }
    if (shared > 0) mix_shared(rows, common, shared);
    for (int r = 0; r < a.m; ++r) {
      const PackedSpan& span = spans[r];
      if (span.seen == 0) continue;
      if (span.blocks > shared) mix_own(rows, r, PackedRun(a, r, block), shared, span.blocks, shared > 0);
      finish(rows, r, span, first == 0, a.rows[r].position < first + kSpan, 1.0f / softmax[r].sum);
    }
  }
}

}  // namespace
}  // namespace gpt2lab
