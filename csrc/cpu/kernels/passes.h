// A call with many tokens as several with fewer, so that what is kept per token stays in a cache.
#pragma once

#include "arguments.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

inline int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

// run(arguments) for passes of at most `most` tokens, about as many in each.
template <class Run>
void for_each_pass(const LinearArguments& arguments, int64_t most, Run run) {
  const int64_t passes = (arguments.tokens + most - 1) / most;
  for (int64_t index = 0; index < passes; ++index) {
    const int64_t first = arguments.tokens * index / passes, end = arguments.tokens * (index + 1) / passes;
    LinearArguments pass = arguments;
    pass.tokens = end - first;
    pass.x = static_cast<const uint8_t*>(arguments.x) +
             first * arguments.weight.in_features * element_bytes(arguments.x_dtype);
    pass.y =
        static_cast<uint8_t*>(arguments.y) + first * arguments.weight.out_features * element_bytes(arguments.y_dtype);
    run(pass);
  }
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
