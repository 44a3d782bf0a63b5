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

template <int kCodeBits, class ProductsKind>
class Uniform {
 public:
  using Products = ProductsKind;
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

  // use(Index<step>, Weights) for steps kFirst ..< kLast of a block.
  template <int kFirst, int kLast, class Use>
  REQUANT_INLINE void decode(const uint8_t* block, int slice, Use use) const {
    const Codes<kBits> codes(block, slice);
    unroll<kFirst, kLast>([&](auto step) REQUANT_INLINE {
      constexpr int kPosition = Codes<kBits>::position(step.value, Products::kUsableBits);
      use(step, Products::template from_codes<kBits, kPosition>(codes.template step<step.value, kPosition>()));
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
