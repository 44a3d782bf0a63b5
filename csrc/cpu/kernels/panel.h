// Panels: decoded weights of one tile, in the order in which they meet the inputs.
//
//   panel   [step][register of the step][slice][weights]     a register is four (fp32) or eight (bf16) inputs of kRows
//   rows
//
// A panel holds either code + offset, as the format decodes it, or weights with scale and zero applied.
#pragma once

#include "arguments.h"
#include "kernels/inputs.h"
#include "kernels/products.h"
#include "kernels/segments.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kPrefetchBytes = 4096;  // how far ahead of the codes in use

template <int kBlockBytes>
REQUANT_INLINE inline void prefetch_block(const uint8_t* codes) {
  for (int byte = 0; byte < kBlockBytes; byte += 64) Isa::prefetch(codes + kPrefetchBytes + byte);
}

template <class Products>
struct Panel {
  using Element = typename Products::Input;
  static constexpr int kRegister = Products::kRegisterInputs * Isa::kRows;  // elements
  static constexpr int kStep = Products::kRegisters * Isa::kSlices * kRegister;
  static constexpr int kBlock = kStepsPerBlock * kStep;

  // Steps kFirst ..< kLast of one block, as the format decodes them.
  template <int kFirst, int kLast, class Format>
  REQUANT_INLINE static void decode(const Format& format, const uint8_t* codes, Element* panel) {
    for (int slice = 0; slice < Isa::kSlices; ++slice) {
      format.template decode<kFirst, kLast, 1>(codes, slice, [&](auto step, const auto& weights) REQUANT_INLINE {
        unroll<0, Products::kRegisters>([&](auto part) REQUANT_INLINE {
          Products::store(weights[0].parts[part.value],
                          panel + step.value * kStep + (part.value * Isa::kSlices + slice) * kRegister);
        });
      });
    }
  }

  // The same with scale and zero applied. The format has Fp32Products.
  template <int kFirst, int kLast, class Format>
  REQUANT_INLINE static void decode_scaled(const Format& format, const uint8_t* codes, Element* panel) {
    for (int slice = 0; slice < Isa::kSlices; ++slice) {
      const Scaled<Format> scaled(format, slice);
      format.template decode<kFirst, kLast, 1>(codes, slice, [&](auto step, const auto& weights) REQUANT_INLINE {
        const Floats even = scaled(weights[0].parts[0]), odd = scaled(weights[0].parts[1]);
        Element* place = panel + step.value * kStep + slice * kRegister;
        if constexpr (Products::kRegisters == 1) {
          Products::store(Isa::round_to_bf16(even, odd), place);
        } else {
          Products::store(even, place);
          Products::store(odd, place + Isa::kSlices * kRegister);
        }
      });
    }
  }

  // Where the weight of one row and input stands.
  static int64_t place(int row, int64_t input) {
    const int64_t in_step = Products::place_in_step(input % kStepInputs);
    const int64_t part = in_step / Products::kRegisterInputs, in_register = in_step % Products::kRegisterInputs;
    return input / kStepInputs * kStep + (part * Isa::kSlices + row / Isa::kRows) * kRegister +
           row % Isa::kRows * Products::kRegisterInputs + in_register;
  }
};

// A panel, and the inputs that it meets.
template <class Products>
struct PanelProduct {
  const typename Products::Input* panel;
  int64_t registers;
  const typename Products::Input* x;  // [token][stride]
  int64_t stride;
};

// sums [token][slice] = the products.
template <class Products, int kTokens>
void multiply_panel_tokens(const PanelProduct<Products>& product, Floats* sums) {
  constexpr int kTogether = Isa::kPanelSlices;
  constexpr int kRegister = Products::kRegisterInputs * Isa::kRows;
  for (int slice = 0; slice < Isa::kSlices; slice += kTogether) {
    Floats sum[kTokens][kTogether];
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token) {
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) sum[token][i] = Isa::splat(0.0f);
    }
    const auto* weights = product.panel + slice * kRegister;
    const auto* x = product.x;
    for (int64_t k = 0; k < product.registers; ++k) {
      typename Products::Register together[kTogether];
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) together[i] = Products::load(weights + i * kRegister);
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; ++token) {
        const auto inputs = Products::repeat(x + token * product.stride);
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) {
          sum[token][i] = Products::multiply_add(together[i], inputs, sum[token][i]);
        }
      }
      weights += Isa::kSlices * kRegister;
      x += Products::kRegisterInputs;
    }
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token) {
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) sums[token * Isa::kSlices + slice + i] = sum[token][i];
    }
  }
}

// The same for 1 <= tokens <= kPanelTokens.
template <class Products>
void multiply_panel(const PanelProduct<Products>& product, int tokens, Floats* sums) {
  unroll<1, Isa::kPanelTokens + 1>([&](auto count) {
    if (count.value == tokens) multiply_panel_tokens<Products, count.value>(product, sums);
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
