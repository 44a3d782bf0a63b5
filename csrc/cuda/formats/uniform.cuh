// Format `uniform` as operand A of the matrix product: codes as small integers, exact in 16 bits; their scale and zero
// are applied to fp32 sums, once per group (linear.cuh).
#pragma once

#include "cuda/accumulators.cuh"
#include "cuda/formats/fields.cuh"

namespace requant::cuda {

template <int kCodeBits, class NumberType, bool kZero, Groups kGroupKind>
struct UniformWeights : Tile16Weights {
  using Number = NumberType;
  static constexpr int kBits = kCodeBits;
  static constexpr bool kHasZero = kZero;
  static constexpr Groups kGroups = kGroupKind;
  // The middle code stands for zero: it is taken off codes here, exactly, and `zero` is counted from it.
  static constexpr int kMiddle = 1 << (kBits - 1);

  __device__ UniformWeights(const LinearParameters&, int64_t /*tile*/, int lane) : lane_(lane) {}

  __device__ float row_scale(int /*half*/) const { return 1; }

  // Operand A of inputs 16 kStep .. 16 kStep + 15 of a span; `codes` is the span from the lane's first dword on.
  template <int kStep>
  __device__ __forceinline__ void fragment(const uint8_t* codes, uint32_t (&a)[4]) const {
    using Place = StepPlace<kBits, kStep>;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = Place::word(codes, half);
      if constexpr (kBits == 3) {
        const uint32_t spread = spread_high_bits(Place::high_bits(codes, half, lane_));
        a[half] = field_pair<Number, 4, Place::kField / 2, kMiddle>(three_bit_nibbles<false>(word, spread));
        a[half + 2] = field_pair<Number, 4, Place::kField / 2, kMiddle>(three_bit_nibbles<true>(word, spread));
      } else if constexpr (kBits > Numbers<Number>::kMantissaBits) {
        a[half] = eight_bit_pair<Number, Place::kField>(word);
        a[half + 2] = eight_bit_pair<Number, Place::kField + 1>(word);
      } else {
        a[half] = field_pair<Number, kBits, Place::kField, kMiddle>(word);
        a[half + 2] = field_pair<Number, kBits, Place::kField + 1, kMiddle>(word);
      }
    }
  }

 private:
  int lane_;
};

}  // namespace requant::cuda
