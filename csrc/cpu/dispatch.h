// Which instruction sets this build has and this processor (and operating system) can run.
#pragma once

#include <string>
#include <vector>

#include "cpu/arguments.h"
#include "cpu/viterbi.h"

namespace requant::cpu {

struct InstructionSet {
  std::string name;
  const Kernels* uniform;
  const Kernels* lut;
  const Prefill* prefill;
  const Int8Activations* int8_activations;
  const TrellisKernels* trellis;
  void (*viterbi)(const ViterbiArguments&);
  bool use_matrix_tiles;
};

// Those that run here, slowest first; "scalar" is always there.
const std::vector<InstructionSet>& instruction_sets();

}  // namespace requant::cpu
