// The kernels for inputs that are rounded to 8 bits, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels.h"
#include "kernels/rounded_linear.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

void linear(const LinearArguments& arguments) {
  const bool uniform = arguments.weight.table == nullptr;
  switch (arguments.weight.bits) {
    case 2:
      return uniform ? RoundedLinear<UniformBytes<2>>(arguments).run() : RoundedLinear<LutBytes<2>>(arguments).run();
    case 3:
      return uniform ? RoundedLinear<UniformBytes<3>>(arguments).run() : RoundedLinear<LutBytes<3>>(arguments).run();
    case 4:
      return uniform ? RoundedLinear<UniformBytes<4>>(arguments).run() : RoundedLinear<LutBytes<4>>(arguments).run();
    case 8:
      return RoundedLinear<UniformBytes<8>>(arguments).run();
  }
}

// Matrix tiles multiply many bf16 inputs faster, and vector products of bf16 are no slower than those of two bytes.
bool gains(const LinearArguments& arguments, bool prefill) {
  if (arguments.x_dtype != Dtype::kBFloat16 || !prefill) return true;
  return !arguments.use_matrix_tiles && !(Isa::kHasBf16Products && arguments.weight.table != nullptr);
}

int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

// Of so many tokens the inputs stay in the second-level cache for all tiles, and reading the weights costs little.
void run(const LinearArguments& arguments) {
  for (int64_t token = 0; token < arguments.tokens; token += kMaxTokens) {
    LinearArguments pass = arguments;
    const int64_t bytes = token * element_bytes(arguments.x_dtype);
    pass.tokens = smaller<int64_t>(kMaxTokens, arguments.tokens - token);
    pass.x = static_cast<const uint8_t*>(arguments.x) + bytes * arguments.weight.in_features;
    pass.y = static_cast<uint8_t*>(arguments.y) + bytes * arguments.weight.out_features;
    linear(pass);
  }
}

}  // namespace

const Int8Activations kInt8Activations{gains, run};

}  // namespace requant::cpu::REQUANT_ISA
