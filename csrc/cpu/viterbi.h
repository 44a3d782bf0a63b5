// What the trellis encoder is told. Plain data; every pointer is borrowed for the call.
#pragma once

#include <cstdint>

namespace requant::cpu {

constexpr int kStateBits = 16;
constexpr int kStates = 1 << kStateBits;
constexpr int kSequenceValues = 256;

struct ViterbiArguments {
  const float* targets;  // [sequences, 256]
  int64_t sequences;
  const float* values;  // [kStates, values_per_step]: what each state emits
  int step_bits;        // bits that a step appends to the state: 2 .. 8
  int values_per_step;  // 1 or 2
  uint16_t* states;     // [sequences, 256 / values_per_step]
  int threads;
};

}  // namespace requant::cpu
