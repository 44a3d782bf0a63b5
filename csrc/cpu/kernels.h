// The kernels by instruction set. CMake compiles every kernel source once per instruction set that the
// target has, each time with that set's compiler flags and REQUANT_ISA as the name of a namespace of its own, so that
// no function compiled for one processor can stand in for another.
#pragma once

#include "arguments.h"
#include "viterbi.h"

namespace requant::cpu {

// Defined once per instruction set, in namespace requant::cpu::<isa>.
#define REQUANT_DECLARE_KERNELS(isa)             \
  namespace isa {                                \
  extern const Kernels kUniform;                 \
  extern const Kernels kLut;                     \
  extern const Prefill kPrefill;                 \
  extern const Int8Activations kInt8Activations; \
  extern const TrellisKernels kTrellis;          \
  void viterbi(const ViterbiArguments&);         \
  }

REQUANT_DECLARE_KERNELS(scalar)
REQUANT_DECLARE_KERNELS(avx2)
REQUANT_DECLARE_KERNELS(avx512)
REQUANT_DECLARE_KERNELS(avx512bf16)

#undef REQUANT_DECLARE_KERNELS

}  // namespace requant::cpu
