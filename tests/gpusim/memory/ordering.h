// Which accesses of a block's warps are ordered before which: vector clocks, with one clock for the whole block that
// ticks at every synchronisation.
//
// An access of warp v at time t happens before what warp w does now if t < known(w)[v].
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace gpusim {

constexpr unsigned kMaxWarps = 32;

class Ordering {
 public:
  using Times = std::array<uint32_t, kMaxWarps>;

  uint32_t now() const { return now_; }
  const Times& known(unsigned warp) const { return known_[warp]; }
  // Everything before this time happens before what the warp does now.
  uint32_t horizon(unsigned warp) const { return horizon_[warp]; }

  // Another block starts on the same memory.
  void start_block() {
    ++now_;
    for (unsigned warp = 0; warp < kMaxWarps; ++warp) {
      known_[warp].fill(now_);
      horizon_[warp] = now_;
    }
  }

  void forget() { now_ = 0; }

  // The lanes of a warp wait for each other.
  void synchronize_warp(unsigned warp) {
    known_[warp][warp] = ++now_;
    update_horizon(warp);
  }

  // A warp announces what it has done so far; returns the time for complete_barrier.
  uint32_t arrive() { return ++now_; }

  // Every warp of `waiting` learns what the warps of `arrived`, a superset, knew and did when they arrived.
  void complete_barrier(uint32_t arrived, uint32_t waiting, const Times& arrival) {
    ++now_;
    Times joined{};
    for (unsigned warp = 0; warp < kMaxWarps; ++warp) {
      if (!(arrived >> warp & 1)) continue;
      for (unsigned other = 0; other < kMaxWarps; ++other) {
        joined[other] = std::max(joined[other], known_[warp][other]);
      }
      joined[warp] = std::max(joined[warp], waiting >> warp & 1 ? now_ : arrival[warp]);
    }
    for (unsigned warp = 0; warp < kMaxWarps; ++warp) {
      if (!(waiting >> warp & 1)) continue;
      known_[warp] = joined;
      update_horizon(warp);
    }
  }

 private:
  void update_horizon(unsigned warp) { horizon_[warp] = *std::min_element(known_[warp].begin(), known_[warp].end()); }

  uint32_t now_ = 0;
  std::array<Times, kMaxWarps> known_{};
  Times horizon_{};
};

}  // namespace gpusim
