// The batch kernel's inner loop: a panel of decoded weights times a block of tokens whose sums stay in registers.
//
//   panel   [register of the segment][slice][weights]     a register is four (fp32) or eight (bf16) inputs of kRows
//   rows
#pragma once

#include "kernels/products.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// One segment: the sum over it of one token and slice is scale * (sum of decoded * x - center * sum of x).
template <class Products>
struct PanelSegment {
  const typename Products::Input* panel;
  int64_t registers;
  const typename Products::Input* x;  // [token][stride]
  int64_t stride;
  const float* scales;   // [row]
  const float* centers;  // [row], or null: 0
  const float* x_sums;   // [token][sum_stride]
  int64_t sum_stride;
};

// center * sum of x, negative. A row has four sums in its register; each takes off a quarter.
REQUANT_INLINE inline Floats correction(const float* centers, float x_sum) {
  return Isa::multiply(Isa::splat_rows(centers), Isa::splat(-0.25f * x_sum));
}

// Adds the segment to sums [token][slice].
template <class Products, int kTokens>
void multiply_panel_tokens(const PanelSegment<Products>& segment, Floats* sums) {
  constexpr int kTogether = Isa::kBatchSlices;
  constexpr int kRegister = Products::kRegisterInputs * Isa::kRows;
  for (int slice = 0; slice < Isa::kSlices; slice += kTogether) {
    Floats sum[kTokens][kTogether];
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token) {
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) {
        sum[token][i] = segment.centers == nullptr ? Isa::splat(0.0f)
                                                   : correction(segment.centers + (slice + i) * Isa::kRows,
                                                                segment.x_sums[token * segment.sum_stride]);
      }
    }
    const auto* weights = segment.panel + slice * kRegister;
    const auto* x = segment.x;
    for (int64_t k = 0; k < segment.registers; ++k) {
      typename Products::Register together[kTogether];
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) together[i] = Products::load(weights + i * kRegister);
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; ++token) {
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) {
          sum[token][i] = Products::multiply_add(together[i], x + token * segment.stride, sum[token][i]);
        }
      }
      weights += Isa::kSlices * kRegister;
      x += Products::kRegisterInputs;
    }
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token) {
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) {
        Floats& total = sums[token * Isa::kSlices + slice + i];
        total = Isa::multiply_add(sum[token][i], Isa::splat_rows(segment.scales + (slice + i) * Isa::kRows), total);
      }
    }
  }
}

// The same for 1 <= tokens <= kBatchTokens.
template <class Products>
void multiply_panel(const PanelSegment<Products>& segment, int tokens, Floats* sums) {
  unroll<1, Isa::kBatchTokens + 1>([&](auto count) {
    if (count.value == tokens) multiply_panel_tokens<Products, count.value>(segment, sums);
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
