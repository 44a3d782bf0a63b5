// Format `lut` of one tile: w = table[row][code], times the scale of the group if there is one.
#pragma once

#include "arguments.h"
#include "kernels/codes.h"
#include "kernels/conversion.h"
#include "kernels/lut_tables.h"
#include "kernels/products.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
class LutRows;  // kernels/row_lanes.h

template <int kCodeBits, int kEntryBytes, class ProductsKind>
class Lut {
  using Layout = Block<kCodeBits>;

 public:
  using Products = ProductsKind;
  template <class Format>
  using Rows = LutRows<Format>;
  static constexpr int kBits = kCodeBits;
  static constexpr bool kCentered = false;
  static constexpr int kParts = kEntryBytes / 2;  // 16-bit halves of an entry
  using Tables = LutTables<kBits, kEntryBytes>;

  Lut(const Weight& weight, int64_t groups, int64_t tile) : weight_(weight), first_(tile * groups * kTileRows) {
    for (float& scale : scale_) scale = 1;
    if (weight.shared_table) {
      tables_.load(weight, 0, 0);
      tables_.repeat_first_row();
    } else {
      for (int row = 0; row < kTileRows; ++row) tables_.load(weight, tile * kTileRows + row, row);
    }
  }

  void select_group(int64_t group) {
    if (weight_.scale != nullptr) {
      load_floats(weight_.scale, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, scale_);
    }
  }
  const float* scales() const { return scale_; }  // of the selected group, by row
  const float* zeros() const { return nullptr; }
  static constexpr float offset(int) { return 0; }

  // use(Index<step>, weights of kSlices slices) for steps kFirst ..< kLast of a block, in the order 0 4 1 5 ... or
  // 0 2 1 3 ...
  template <int kFirst, int kLast, int kSlices, class Use>
  REQUANT_INLINE void decode(const uint8_t* block, int first_slice, Use use) const {
    constexpr int kDistance = Layout::kStepsPerPlane / 2;
    Codes<kBits> codes[kSlices];
    unroll<0, kSlices>([&](auto i) REQUANT_INLINE { codes[i.value].load(block, first_slice + i.value); });
    unroll<0, kStepsPerBlock>([&](auto step) REQUANT_INLINE {
      constexpr int kStep = step.value, kPartner = kStep + kDistance;
      if constexpr (kStep % Layout::kStepsPerPlane < kDistance) {
        typename Products::Weights first[kSlices], second[kSlices];
        unroll<0, kSlices>([&](auto i) REQUANT_INLINE {
          const Words index = codes[i.value].template two_steps<kStep, !Tables::kMasksIndices>();
          const TwoSteps high = tables_.look_up(index, first_slice + i.value, kEntryBytes - 2);
          TwoSteps low{};
          if constexpr (kEntryBytes == 4) low = tables_.look_up(index, first_slice + i.value, 0);
          first[i.value] = weights(high.first, low.first);
          second[i.value] = weights(high.second, low.second);
        });
        if constexpr (kFirst <= kStep && kStep < kLast) use(Index<kStep>{}, first);
        if constexpr (kFirst <= kPartner && kPartner < kLast) use(Index<kPartner>{}, second);
      }
    });
  }

  const Tables& tables() const { return tables_; }

  REQUANT_INLINE static typename Products::Weights weights(Words high, Words low) {
    if constexpr (kEntryBytes == 2) {
      return Products::from_bf16(high);
    } else {
      return Products::from_halves(high, low);
    }
  }

 private:
  const Weight& weight_;
  int64_t first_;
  alignas(64) float scale_[kTileRows];
  Tables tables_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
