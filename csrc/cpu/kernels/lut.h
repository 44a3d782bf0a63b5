// Format `lut` of one tile: w = table[row][code], times the scale of the group if there is one.
//
// A table entry, as fp32, is cut into bytes, and each byte has its own table of 16 bytes per row, looked up with a byte
// shuffle. A bf16 table needs the two upper bytes only.
#pragma once

#include "arguments.h"
#include "kernels/codes.h"
#include "kernels/conversion.h"
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

  Lut(const Weight& weight, int64_t groups, int64_t tile) : weight_(weight), first_(tile * groups * kTileRows) {
    for (float& scale : scale_) scale = 1;
    if (weight.shared_table) {
      split_table(0, 0);
      for (auto& bytes : tables_) {
        for (int row = 1; row < kTileRows; ++row) std::memcpy(bytes[row], bytes[0], sizeof bytes[row]);
      }
    } else {
      for (int row = 0; row < kTileRows; ++row) split_table(tile * kTileRows + row, row);
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
          const Words index = codes[i.value].template two_steps<kStep>();
          const TwoSteps high = look_up(index, first_slice + i.value, kEntryBytes - 2);
          TwoSteps low{};
          if constexpr (kEntryBytes == 4) low = look_up(index, first_slice + i.value, 0);
          first[i.value] = weights(high.first, low.first);
          second[i.value] = weights(high.second, low.second);
        });
        if constexpr (kFirst <= kStep && kStep < kLast) use(Index<kStep>{}, first);
        if constexpr (kFirst <= kPartner && kPartner < kLast) use(Index<kPartner>{}, second);
      }
    });
  }

  struct TwoSteps {
    Words first, second;
  };

  // The words made of bytes `byte` and `byte + 1` of the entries at the indices in the low and in the high bytes.
  REQUANT_INLINE TwoSteps look_up(Words index, int slice, int byte) const {
    const Words low = Isa::lookup_bytes(Isa::load(tables_[byte][slice * Isa::kRows]), index);
    const Words high = Isa::lookup_bytes(Isa::load(tables_[byte + 1][slice * Isa::kRows]), index);
    const Words low_bytes = Isa::splat_words(0x00ff);
    return {Isa::select(low_bytes, low, Isa::template shift_right<-8>(high)),
            Isa::select(low_bytes, Isa::template shift_right<8>(low), high)};
  }

  REQUANT_INLINE static typename Products::Weights weights(Words high, Words low) {
    if constexpr (kEntryBytes == 2) {
      return Products::from_bf16(high);
    } else {
      return Products::from_halves(high, low);
    }
  }

 private:
  // Cuts the 2^bits entries of one row of the table into bytes. Unused places are never looked up.
  void split_table(int64_t table_row, int row) {
    constexpr int kEntries = 1 << kBits;
    if constexpr (kEntryBytes == 2) {
      const uint16_t* entries = static_cast<const uint16_t*>(weight_.table) + table_row * kEntries;
      for (int i = 0; i < kEntries; ++i) tables_[0][row][i] = static_cast<uint8_t>(entries[i]);
      for (int i = 0; i < kEntries; ++i) tables_[1][row][i] = static_cast<uint8_t>(entries[i] >> 8);
    } else {
      float entries[kEntries];
      load_floats(weight_.table, weight_.table_dtype, table_row * kEntries, kEntries, entries);
      uint32_t bits[kEntries];
      std::memcpy(bits, entries, sizeof bits);
      for (int byte = 0; byte < 4; ++byte) {
        for (int i = 0; i < kEntries; ++i) tables_[byte][row][i] = static_cast<uint8_t>(bits[i] >> (8 * byte));
      }
    }
  }

  const Weight& weight_;
  int64_t first_;
  alignas(64) float scale_[kTileRows];
  alignas(64) uint8_t tables_[kEntryBytes][kTileRows][16] = {};
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
