// How inputs are cut where they are rounded to 8 bits: a *section* is up to 128 consecutive inputs of one group,
// counted from the group's first, and has one scale of x per token. requant_kernels/formats/activations.py says the
// same.
//
//   group_size 96    |  group 0  |  group 1  |  group 2  | ...      group_size 160   |      group 0      |  group 1 ...
//   sections         |     0     |     1     |     2     | ...      sections         |       0       | 1 |      2 ...
//
// A kernel reads the blocks of the layout (64 inputs) that a section touches as a whole; where the section has only
// half of a block, the inputs of the other half count as zero.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kSectionInputs = 128;
constexpr int kMaxSectionBlocks = 3;  // two halves and a whole one

struct Section {
  int64_t begin, end;  // inputs, multiples of 32
  int64_t group;
  int64_t first_block;  // that it touches
  int64_t blocks;
  int64_t place;  // of the first one among the blocks of all sections: those of which two have a half count twice
};

class Sections {
 public:
  explicit Sections(const Weight& weight)
      : in_padded_(round_up(weight.in_features, kGroupGranularity)),
        group_size_(weight.group_size < 0 ? in_padded_ : smaller(weight.group_size, in_padded_)),
        groups_(round_up(in_padded_, group_size_) / group_size_),
        sections_(groups_ * (round_up(group_size_, kSectionInputs) / kSectionInputs)) {
    for (int64_t begin = 0; begin < in_padded_; begin = sections_.data()[count_++].end) {
      const int64_t group = begin / group_size_;
      const int64_t group_end = smaller((group + 1) * group_size_, in_padded_);
      const int64_t end = smaller(begin + kSectionInputs, group_end), first_block = begin / kBlockInputs;
      const int64_t blocks = (end + kBlockInputs - 1) / kBlockInputs - first_block;
      sections_.data()[count_] = {begin, end, group, first_block, blocks, blocks_};
      blocks_ += blocks;
    }
  }

  const Section& operator[](int64_t index) const { return sections_.data()[index]; }
  int64_t count() const { return count_; }
  int64_t blocks() const { return blocks_; }  // of all sections
  int64_t groups() const { return groups_; }
  int64_t in_padded() const { return in_padded_; }

 private:
  static int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

  int64_t in_padded_;
  int64_t group_size_;
  int64_t groups_;
  Buffer<Section> sections_;
  int64_t count_ = 0;
  int64_t blocks_ = 0;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
