// Chooses between the kernels for one format.
#pragma once

#include "kernels/batch.h"
#include "kernels/decode.h"
#ifdef __AMX_BF16__
#include "kernels/matrix.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
void run_linear(const LinearArguments& arguments) {
#ifdef __AMX_BF16__
  if constexpr (Format::Products::kRegisters == 1) {
    if (arguments.use_matrix_tiles && arguments.tokens > 1) return MatrixLinear<Format>(arguments).run();
  }
#endif
  if (arguments.tokens > 1) return BatchLinear<Format>(arguments).run();
  DecodeLinear<Format>(arguments).run();
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
