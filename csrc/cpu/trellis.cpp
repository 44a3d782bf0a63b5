// The kernels of format `trellis`, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels/trellis.h"

#include "kernels.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// use(Code, Index<bits>) of a weight.
template <class Code, class Use>
void with_bits(const Weight& weight, Use use) {
  if (weight.bits == 2) use(Code(weight.trellis), Index<2>{});
  if (weight.bits == 3) use(Code(weight.trellis), Index<3>{});
  if (weight.bits == 4) use(Code(weight.trellis), Index<4>{});
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

void linear(const LinearArguments& arguments) {
  with_code(arguments.weight,
            [&](auto code, auto bits) { TrellisLinear<decltype(code), bits.value>(arguments).run(); });
}

void decode(const DequantizeArguments& arguments) {
  with_code(arguments.weight, [&](auto code, auto bits) { decode_rotated<decltype(code), bits.value>(arguments); });
}

}  // namespace

const TrellisKernels kTrellis{linear, decode, rotate_inputs, finish_outputs};

}  // namespace requant::cpu::REQUANT_ISA
