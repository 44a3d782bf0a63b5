#include "cpu/dispatch.h"

#include "cpu/kernels.h"

#if defined(REQUANT_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace requant::cpu {
namespace {

// Whether the processor has matrix tiles for bf16 and the operating system lets this process use them.
[[maybe_unused]] bool may_use_matrix_tiles() {
#if defined(REQUANT_EMULATE_TILES)
  return true;
#elif defined(REQUANT_X86) && defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> available = [] {
    std::vector<InstructionSet> sets{{"scalar", &scalar::kUniform, &scalar::kLut, &scalar::kPrefill,
                                      &scalar::kInt8Activations, &scalar::kTrellis, scalar::viterbi, false}};
#ifdef REQUANT_X86
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (has_avx2)
      sets.push_back({"avx2", &avx2::kUniform, &avx2::kLut, &avx2::kPrefill, &avx2::kInt8Activations, &avx2::kTrellis,
                      avx2::viterbi, false});
    if (has_avx512)
      sets.push_back({"avx512", &avx512::kUniform, &avx512::kLut, &avx512::kPrefill, &avx512::kInt8Activations,
                      &avx512::kTrellis, avx512::viterbi, false});
    if (has_avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512vbmi")) {
      sets.push_back({"avx512bf16", &avx512bf16::kUniform, &avx512bf16::kLut, &avx512bf16::kPrefill,
                      &avx512bf16::kInt8Activations, &avx512bf16::kTrellis, avx512bf16::viterbi, false});
      if (may_use_matrix_tiles())
        sets.push_back({"amx", &avx512bf16::kUniform, &avx512bf16::kLut, &avx512bf16::kPrefill,
                        &avx512bf16::kInt8Activations, &avx512bf16::kTrellis, avx512bf16::viterbi, true});
    }
#endif
    return sets;
  }();
  return available;
}

}  // namespace requant::cpu
