// The kernels of format `trellis`, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels/trellis.h"

#include <type_traits>

#include "kernels.h"
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

// Inputs of 16 bits may be rounded to 16 bits once more.
template <class Code, int kBits>
void linear_with(const LinearArguments& arguments) {
  constexpr int kMostTogether = kLanes / 2;  // tokens whose sums fit the register file
  if constexpr (Code::kSumsBytes) {
    if (arguments.x_dtype != Dtype::kFloat32 && arguments.tokens <= kMostTogether) {
      if (arguments.tokens == 1) return TrellisTokens<Code, kBits, FixedPointInputs<1>>(arguments).run();
      if (arguments.tokens == 2) return TrellisTokens<Code, kBits, FixedPointInputs<2>>(arguments).run();
      if constexpr (kMostTogether > 4) {
        if (arguments.tokens <= 4) return TrellisTokens<Code, kBits, FixedPointInputs<4>>(arguments).run();
      }
      return TrellisTokens<Code, kBits, FixedPointInputs<kMostTogether>>(arguments).run();
    }
  }
  if (arguments.tokens == 1) return TrellisTokens<Code, kBits, FloatInputs>(arguments).run();
  run_trellis_batch(arguments, decode_panels, 1 / Code::kUnit);
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
