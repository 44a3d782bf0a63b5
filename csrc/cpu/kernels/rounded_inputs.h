// The inputs x of one call, at most kMaxTokens, rounded to 8 bits by section, made ready once for all tiles.
//
//   bytes        [section][token][block of the section][64]   in the order of the codes; 0 where there is no input
//   sections     [section][token]                             the scale of x, and the sum of the integers
//   sparse       for the sparse part, which takes x as it was (kernels/sparse_inputs.h)
//
// The order of the codes of a block (Codes::two_steps): a register has 16 bytes of each row, byte 2 * w is input w of
// one step, byte 2 * w + 1 is input w of the step `distance` after it.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/conversion.h"
#include "kernels/inputs.h"
#include "kernels/parallel.h"
#include "kernels/rounding.h"
#include "kernels/sections.h"
#include "kernels/sparse_inputs.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kBlockRegisters = kStepsPerBlock / 2;  // of one slice
constexpr int kRegisterInputs = kBlockInputs / kBlockRegisters;

// The first of the two steps of a register; `distance` is half the steps of a plane.
constexpr int first_step(int index, int distance) { return index / distance * distance + index; }

struct RoundedSection {
  float scale;
  float sum;
};

class RoundedInputs {
 public:
  RoundedInputs(const LinearArguments& arguments, const Sections& sections, int distance, bool with_sparse)
      : arguments_(arguments),
        sections_(sections),
        distance_(distance),
        bytes_(arguments.tokens * sections.blocks() * kBlockInputs),
        rounded_(sections.count() * arguments.tokens),
        sparse_(with_sparse ? arguments.tokens : 0, sections.in_padded()) {}

  // Every thread of the team calls this; then they wait for each other.
  void prepare(const Team& team) {
    const auto [begin, end] = team.share(sections_.count());
    for (int64_t index = begin; index < end; ++index) {
      for (int64_t token = 0; token < arguments_.tokens; ++token) prepare_section(index, token);
    }
    sparse_.store_zeros(team);
    team.wait_for_all();
  }

  // The next token's follow, section.blocks * kBlockInputs later.
  const int8_t* bytes(int64_t token, const Section& section) const { return bytes_.data() + place_of(token, section); }
  const RoundedSection* section(int64_t index, int64_t token) const {
    return rounded_.data() + index * arguments_.tokens + token;
  }
  const SparseInputs& sparse() const { return sparse_; }

 private:
  void prepare_section(int64_t index, int64_t token) {
    const Section& section = sections_[index];
    const int64_t in_features = arguments_.weight.in_features, length = section.end - section.begin;
    const int64_t count = section.blocks * kBlockInputs;
    alignas(64) float x[kMaxSectionBlocks * kBlockInputs] = {};
    float* inputs = x + section.begin % kBlockInputs;
    load_floats(arguments_.x, arguments_.x_dtype, token * in_features + section.begin,
                smaller(length, in_features - section.begin), inputs);

    const Rounding rounding(inputs, length, 127);
    alignas(64) int8_t integers[kMaxSectionBlocks * kBlockInputs];
    rounding.round(x, count, 0, integers);
    int sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += integers[i];
    rounded_.data()[index * arguments_.tokens + token] = {rounding.scale(), static_cast<float>(sum)};
    int8_t* place = bytes_.data() + place_of(token, section);
    for (int64_t i = 0; i < count; i += kBlockInputs) arrange(integers + i, place + i);
    if (sparse_.blocks() > 0) sparse_.store(token, section.begin, length, inputs);
  }

  void arrange(const int8_t* block, int8_t* place) const {
    for (int index = 0; index < kBlockRegisters; ++index, place += kRegisterInputs) {
      const int8_t* first = block + first_step(index, distance_) * kStepInputs;
      const int8_t* second = first + distance_ * kStepInputs;
      for (int i = 0; i < kStepInputs; ++i) {
        place[2 * i] = first[i];
        place[2 * i + 1] = second[i];
      }
    }
  }

  // In `bytes`.
  int64_t place_of(int64_t token, const Section& section) const {
    return (section.place * arguments_.tokens + token * section.blocks) * kBlockInputs;
  }

  const LinearArguments& arguments_;
  const Sections& sections_;
  int distance_;
  Buffer<int8_t> bytes_;
  Buffer<RoundedSection> rounded_;
  SparseInputs sparse_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
