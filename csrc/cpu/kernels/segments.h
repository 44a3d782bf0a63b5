// How a kernel walks along the inputs: in segments, which end at every group (there the scale changes) and at every
// stretch (as many inputs as are decoded at a time, so that what is decoded stays in the first-level cache).
//
//   group_size 96     |  group 0  |  group 1  |  group 2  |  group 3  | ...
//   stretches of 256  |            stretch 0             |           ...
//   segments          |     0     |     1     |    2     |3|    4     | ...
#pragma once

#include <cstdint>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kStretchInputs = 256;

struct Segment {
  int64_t begin, end;  // inputs, multiples of 32
  int64_t group;
  bool ends_stretch;

  int64_t stretch() const { return begin / kStretchInputs; }
};

class Segments {
 public:
  explicit Segments(const Weight& weight)
      : in_padded_(round_up(weight.in_features, kGroupGranularity)),
        group_size_(weight.group_size < 0 ? in_padded_ : weight.group_size),
        groups_(round_up(in_padded_, group_size_) / group_size_),
        segments_(groups_ + round_up(in_padded_, kStretchInputs) / kStretchInputs) {
    for (int64_t begin = 0; begin < in_padded_; begin = segments_.data()[count_++].end) {
      const int64_t group = begin / group_size_, stretch = begin / kStretchInputs;
      const int64_t stretch_end = smaller((stretch + 1) * kStretchInputs, in_padded_);
      const int64_t end = smaller((group + 1) * group_size_, stretch_end);
      segments_.data()[count_] = {begin, end, group, end == stretch_end};
    }
  }

  const Segment& operator[](int64_t index) const { return segments_.data()[index]; }
  int64_t count() const { return count_; }
  int64_t groups() const { return groups_; }
  int64_t in_padded() const { return in_padded_; }  // inputs that are worked on: codes beyond them are never read

 private:
  static int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

  int64_t in_padded_;
  int64_t group_size_;
  int64_t groups_;
  Buffer<Segment> segments_;
  int64_t count_ = 0;
};

// run(block, Index<first step>, Index<last step>) for every block, or half of one, of a segment.
template <class Run>
REQUANT_INLINE inline void for_each_block(const Segment& segment, Run run) {
  constexpr int kHalf = kStepsPerBlock / 2;
  int64_t block = segment.begin / kBlockInputs;
  if (segment.begin % kBlockInputs != 0) run(block++, Index<kHalf>{}, Index<kStepsPerBlock>{});
  for (; block < segment.end / kBlockInputs; ++block) run(block, Index<0>{}, Index<kStepsPerBlock>{});
  if (segment.end % kBlockInputs != 0 && block * kBlockInputs < segment.end) run(block, Index<0>{}, Index<kHalf>{});
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
