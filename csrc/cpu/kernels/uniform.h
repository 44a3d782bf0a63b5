// Format `uniform` of one tile: w = scale * (code - zero).
//
// A kernel sums decoded * x over a segment of inputs, where decoded = code + offset and the offset depends on the step,
// and needs scale and zero only once per segment:
//
//   sum w * x  =  scale * (sum decoded * x  -  zero * sum x  -  sum offset * x)
#pragma once

#include "arguments.h"
#include "kernels/codes.h"
#include "kernels/conversion.h"
#include "kernels/products.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
class UniformRows;  // kernels/row_lanes.h

template <int kCodeBits, class ProductsKind>
class Uniform {
 public:
  using Products = ProductsKind;
  template <class Format>
  using Rows = UniformRows<Format>;
  static constexpr int kBits = kCodeBits;
  static constexpr bool kCentered = true;  // sums of x are needed

  Uniform(const Weight& weight, int64_t groups, int64_t tile) : weight_(weight), first_(tile * groups * kTileRows) {
    for (float& zero : zero_) zero = 1 << (kBits - 1);
  }

  void select_group(int64_t group) {
    load_floats(weight_.scale, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, scale_);
    if (weight_.zero != nullptr) {
      load_floats(weight_.zero, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, zero_);
    }
  }
  const float* scales() const { return scale_; }  // of the selected group, by row
  const float* zeros() const { return zero_; }

  // What decode() adds to the codes of one step.
  static constexpr float offset(int step) {
    return Products::template offset<kBits>(Codes<kBits>::position(step, Products::kUsableBits));
  }

  // use(Index<step>, weights of kSlices slices) for steps kFirst ..< kLast of a block.
  template <int kFirst, int kLast, int kSlices, class Use>
  REQUANT_INLINE void decode(const uint8_t* block, int first_slice, Use use) const {
    using Weights = typename Products::Weights;
    Codes<kBits> codes[kSlices];
    unroll<0, kSlices>([&](auto i) REQUANT_INLINE { codes[i.value].load(block, first_slice + i.value); });
    unroll<kFirst, kLast>([&](auto step) REQUANT_INLINE {
      constexpr int kPosition = Codes<kBits>::position(step.value, Products::kUsableBits);
      Weights weights[kSlices];
      unroll<0, kSlices>([&](auto i) REQUANT_INLINE {
        weights[i.value] =
            Products::template from_codes<kBits, kPosition>(codes[i.value].template step<step.value, kPosition>());
      });
      use(step, weights);
    });
  }

 private:
  const Weight& weight_;
  int64_t first_;
  alignas(64) float scale_[kTileRows];
  alignas(64) float zero_[kTileRows];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
