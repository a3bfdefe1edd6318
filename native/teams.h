// How the threads of a pool divide the products of a pass.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "thread_pool.h"

namespace gpt2lab {

// Teams of threads divide the rows, and the members of a team the outputs of every product. With many rows, teams are
// small, so that outside attention a thread reads only what its own team has written. Within a layer, teams of one
// thread wait only before and after attention.
class Teams {
 public:
  Teams(int rows, int threads) : rows_(rows), threads_(threads) {
    for (int count = 2; count <= threads && count * kLeastRows <= rows; ++count)
      if (threads % count == 0 && is_even(count)) count_ = count;
  }

  // All threads together.
  static Teams one(int rows, int threads) {
    Teams teams(rows, threads);
    teams.count_ = 1;
    return teams;
  }

  int rows() const { return rows_; }
  int count() const { return count_; }
  int size() const { return threads_ / count_; }

  // Returns the rows of a thread's team; only the last row of all ends within a pair of groups.
  Share of_team(int thread) const {
    const Share pairs(this->pairs(), thread / size(), count_);
    return {std::min(pairs.begin * kRowPair, rows_), std::min(pairs.end * kRowPair, rows_)};
  }

  // Returns a thread's part of the rows of its team.
  Share of_member(int thread) const {
    const Share team = of_team(thread);
    const Share part = share(team.end - team.begin, thread);
    return {team.begin + part.begin, team.begin + part.end};
  }

  // Returns a thread's share of `items` that the members of each team divide.
  Share share(int items, int thread) const { return {items, thread % size(), size()}; }

 private:
  static constexpr int kLeastRows = 64;  // fewest rows per team: each team reads all weights

  int pairs() const { return (rows_ + kRowPair - 1) / kRowPair; }
  // Whether the largest of `count` teams has at most a twelfth more than its share.
  bool is_even(int count) const { return (pairs() + count - 1) / count * count * 12 <= pairs() * 13; }

  int rows_, threads_, count_ = 1;
};

}  // namespace gpt2lab
