// Format `uniform` of one tile: w = scale * (code - zero).
//
// A kernel sums decoded * x over a segment of inputs, where decoded = code + offset, and needs scale and zero only once
// per segment:
//
//   sum w * x  =  scale * (sum decoded * x  -  center * sum x),    center = zero + offset
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
    for (float& center : center_) center = (1 << (kBits - 1)) + kOffset;
  }

  void select_group(int64_t group) {
    load_floats(weight_.scale, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, scale_);
    if (weight_.zero != nullptr) {
      load_floats(weight_.zero, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, center_);
      for (float& center : center_) center += kOffset;
    }
  }
  const float* scales() const { return scale_; }  // of the selected group, by row
  const float* centers() const { return center_; }

  // use(Index<step>, Weights) for steps kFirst ..< kLast of a block.
  template <int kFirst, int kLast, class Use>
  REQUANT_INLINE void decode(const uint8_t* block, int slice, Use use) const {
    const Codes<kBits> codes(block, slice);
    unroll<kFirst, kLast>([&](auto step) REQUANT_INLINE {
      use(step, Products::template from_codes<kBits>(codes.template step<step.value>()));
    });
  }

 private:
  static constexpr float kOffset = Products::template kCodeOffset<kBits>;

  const Weight& weight_;
  int64_t first_;
  alignas(64) float scale_[kTileRows];
  alignas(64) float center_[kTileRows];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
