// The kernels of format `trellis`, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels/trellis.h"

#include <type_traits>

#include "kernels.h"
#include "kernels/passes.h"
#include "kernels/trellis_dequantize.h"
#include "kernels/trellis_panel.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// use(Code, Index<bits>) of a weight; the argument of type Code is null.
template <class Code, class Use>
void with_bits(const Weight& weight, Use use) {
  constexpr Code* kCode = nullptr;
  if (weight.bits == 2) use(kCode, Index<2>{});
  if (weight.bits == 3) use(kCode, Index<3>{});
  if (weight.bits == 4) use(kCode, Index<4>{});
}

template <class Use>
void with_code(const Weight& weight, Use use) {
  switch (weight.trellis.code) {
    case TrellisCode::k1mad:
      return with_bits<OneMad>(weight, use);
    case TrellisCode::k3inst:
      return with_bits<ThreeInst>(weight, use);
    case TrellisCode::kHyb:
      return with_bits<Hyb>(weight, use);
  }
}

void decode_panels(const PanelArguments& arguments) {
  with_code(arguments.weight, [&](auto code, auto bits) {
    TrellisPanels<std::remove_pointer_t<decltype(code)>, bits.value>(arguments).decode();
  });
}

// use(Index<count>) with the least `count` for so many tokens, at most kMost, of those that there are kernels for.
template <int kMost, class Use>
void with_tokens(int64_t tokens, Use use) {
  if (tokens == 1) return use(Index<1>{});
  if (tokens == 2) return use(Index<2>{});
  if constexpr (kMost > 4) {
    if (tokens <= 4) return use(Index<4>{});
  }
  use(Index<kMost>{});
}

constexpr int64_t kMostBatchTokens = 512;  // more would only move their sums through memory

// Inputs of 16 bits may be rounded to 16 bits once more.
template <class Code, int kBits>
void linear_with(const LinearArguments& arguments) {
  constexpr int kFitting = kLanes / 2;  // tokens whose sums fit the register file
  if constexpr (Code::kSumsBytes) {
    if (arguments.x_dtype != Dtype::kFloat32 && arguments.tokens <= kFitting) {
      return with_tokens<kFitting>(arguments.tokens, [&](auto count) {
        TrellisTokens<Code, kBits, FixedPointInputs<count.value>>(arguments).run();
      });
    }
  }
#ifdef __AVX512BF16__
  if constexpr (Code::kPairInputs > 0) {
    // Panels have two inputs in every pair.
    constexpr int kMost = Code::kPairInputs == 2 ? kFitting : kFitting / 2;
    if (arguments.x_dtype == Dtype::kBFloat16 && arguments.tokens <= kMost) {
      return with_tokens<kMost>(arguments.tokens, [&](auto count) {
        TrellisTokens<Code, kBits, PairInputs<Code, count.value>>(arguments).run();
      });
    }
  }
#endif
  if (arguments.tokens == 1) return TrellisTokens<Code, kBits, FloatInputs>(arguments).run();
  for_each_pass(arguments, kMostBatchTokens, [](const LinearArguments& pass) {
    const bool bf16 = pass.x_dtype == Dtype::kBFloat16;
    (bf16 ? run_trellis_batch<uint16_t> : run_trellis_batch<float>)(pass, decode_panels, 1 / Code::kUnit);
  });
}

void linear(const LinearArguments& arguments) {
  with_code(arguments.weight,
            [&](auto code, auto bits) { linear_with<std::remove_pointer_t<decltype(code)>, bits.value>(arguments); });
}

void decode_rotated(const DequantizeArguments& arguments) {
  with_code(arguments.weight, [&](auto code, auto bits) {
    TrellisDequantize<std::remove_pointer_t<decltype(code)>, bits.value>(arguments).run();
  });
}

}  // namespace

const TrellisKernels kTrellis{linear, decode_rotated};

}  // namespace requant::cpu::REQUANT_ISA
