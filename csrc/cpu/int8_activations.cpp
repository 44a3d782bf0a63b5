// The kernels for inputs that are rounded to 8 bits, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels.h"
#include "kernels/passes.h"
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

// Where rounding bf16 inputs is faster than bf16 products (docs/benchmarks.md): the bits of a table's or of uniform
// codes, and from how many to how many tokens.
struct Gain {
  bool table;
  int bits;
  int64_t first_tokens;
  int64_t last_tokens;
};
constexpr Gain kGains[] = {
    {false, 2, 1, INT64_MAX}, {false, 3, 1, INT64_MAX}, {false, 4, 3, INT64_MAX}, {false, 8, 12, INT64_MAX},
    {true, 2, 2, 4},          {true, 3, 1, 4},          {true, 4, 2, 4}};

// Many inputs are rounded and, for the sparse part, put side by side: fewer rows do not repay that.
constexpr int64_t kLeastSparseRows = 1024;

// Inputs that would meet fp32 products always gain. Matrix tiles multiply many inputs faster.
bool gains(const LinearArguments& arguments, bool prefill) {
  if (!Isa::kHasBf16Products || arguments.x_dtype != Dtype::kBFloat16) return true;
  const Weight& weight = arguments.weight;
  const bool few_sparse_rows = weight.sparse.words != nullptr && weight.out_features < kLeastSparseRows;
  if (prefill && (arguments.use_matrix_tiles || few_sparse_rows)) return false;
  for (const Gain& gain : kGains) {
    if (gain.table == (weight.table != nullptr) && gain.bits == weight.bits) {
      return gain.first_tokens <= arguments.tokens && arguments.tokens <= gain.last_tokens;
    }
  }
  return true;
}

// Of so many tokens the inputs stay in the second-level cache for all tiles, and reading the weights costs little.
void run(const LinearArguments& arguments) { for_each_pass(arguments, kMaxTokens, linear); }

}  // namespace

const Int8Activations kInt8Activations{gains, run};

}  // namespace requant::cpu::REQUANT_ISA
