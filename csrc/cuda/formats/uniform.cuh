// Format `uniform` as operand A of the matrix product: codes as small integers, exact in 16 bits; their scale and zero
// are applied to fp32 sums, once per group (linear.cuh).
#pragma once

#include "common/tile16.h"
#include "cuda/formats/fields.cuh"
#include "cuda/parameters.cuh"

namespace requant::cuda {

template <int kCodeBits, class NumberType>
struct UniformWeights {
  using Number = NumberType;
  static constexpr int kBits = kCodeBits;
  static constexpr int kFieldBits = Block<kBits>::kFieldBits;
  static constexpr bool kHasHighBits = kBits == 3;
  static constexpr bool kCanHaveZero = true;
  using Codes = TileCodes<kBits>;

  __device__ UniformWeights(const LinearParameters&, int64_t /*tile*/, int /*lane*/) {}

  // The middle code stands for zero: it is taken off here, exactly, and `zero` is counted from it.
  static constexpr int kMiddle = 1 << (kBits - 1);

  __device__ static bool scaled_by_group(const LinearParameters&) { return true; }
  __device__ float row_scale(int /*half*/) const { return 1; }

  // Operand A of step kStep: inputs 16 kStep .. 16 kStep + 15 of the span.
  template <int kStep>
  __device__ void fragment(const Codes& codes, uint32_t (&a)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a[half] = pair<kStep, 0>(codes, half);
      a[half + 2] = pair<kStep, 1>(codes, half);
    }
  }

 private:
  template <int kStep, int kHalfStep>
  __device__ static uint32_t pair(const Codes& codes, int half) {
    constexpr int kWord = kStep / Codes::kStepsPerWord;
    constexpr int kPosition = kStep % Codes::kStepsPerWord * 2 + kHalfStep;
    if constexpr (kHasHighBits) {
      return three_bit_pair<Number, kPosition>(codes.low[half][kWord], codes.high[half][kWord]);
    } else if constexpr (kFieldBits > Numbers<Number>::kMantissaBits) {
      return eight_bit_pair<Number, kPosition>(codes.low[half][kWord]);
    } else {
      return field_pair<Number, kFieldBits, kPosition, kMiddle>(codes.low[half][kWord]);
    }
  }
};

}  // namespace requant::cuda
