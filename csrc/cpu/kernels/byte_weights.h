// Decoded weights of one tile as unsigned bytes, for integer products: w = scale * (bytes - zero), where `bytes` is one
// byte or two, the high one first.
//
//   UniformBytes   format `uniform`: the byte is the code
//   LutBytes       format `lut`: the two are the table's entry in fixed point, rounded to 2^-15 of the row's largest
#pragma once

#include "arguments.h"
#include "kernels/codes.h"
#include "kernels/conversion.h"
#include "kernels/rounded_inputs.h"
#include "kernels/rounding.h"
#include "kernels/uniform.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// The codes of one slice of a block that stand in register kIndex, two per word as in Codes::two_steps.
template <int kBits, int kIndex>
REQUANT_INLINE inline Words codes_of_register(const uint8_t* block, int slice) {
  constexpr int kDistance = Block<kBits>::kStepsPerPlane / 2;
  Codes<kBits> codes;
  codes.load(block, slice);
  return codes.template two_steps<first_step(kIndex, kDistance)>();
}

template <int kCodeBits>
class UniformBytes : public Uniform<kCodeBits, Fp32Products> {
 public:
  using Uniform<kCodeBits, Fp32Products>::Uniform;
  static constexpr int kBytes = 1;
  static constexpr bool kBelow128 = kCodeBits < 8;

  // Bytes kFirst ..< kFirst + kCount of one register of one slice of a block.
  template <int kIndex, int kFirst, int kCount>
  REQUANT_INLINE void decode(const uint8_t* block, int slice, Words* bytes) const {
    bytes[0] = codes_of_register<kCodeBits, kIndex>(block, slice);
  }
};

template <int kCodeBits>
class LutBytes {
 public:
  static constexpr int kBits = kCodeBits;
  static constexpr int kBytes = 2;
  static constexpr bool kBelow128 = false;

  LutBytes(const Weight& weight, int64_t groups, int64_t tile) : weight_(weight), first_(tile * groups * kTileRows) {
    for (float& zero : zero_) zero = kMiddle;
    if (weight.shared_table) {
      round_table(0, 0);
      for (int row = 1; row < kTileRows; ++row) {
        entry_scale_[row] = entry_scale_[0];
        for (auto& bytes : tables_) std::memcpy(bytes[row], bytes[0], sizeof bytes[row]);
      }
    } else {
      for (int row = 0; row < kTileRows; ++row) round_table(tile * kTileRows + row, row);
    }
    std::memcpy(scale_, entry_scale_, sizeof scale_);
  }

  void select_group(int64_t group) {
    if (weight_.scale == nullptr) return;
    load_floats(weight_.scale, weight_.scale_dtype, first_ + group * kTileRows, kTileRows, scale_);
    for (int row = 0; row < kTileRows; ++row) scale_[row] *= entry_scale_[row];
  }
  const float* scales() const { return scale_; }  // of the selected group, by row
  const float* zeros() const { return zero_; }

  template <int kIndex, int kFirst, int kCount>
  REQUANT_INLINE void decode(const uint8_t* block, int slice, Words* bytes) const {
    const Words codes = codes_of_register<kBits, kIndex>(block, slice);
#pragma GCC unroll 2
    for (int byte = 0; byte < kCount; ++byte) {
      bytes[byte] = Isa::lookup_bytes(Isa::load(tables_[kFirst + byte][slice * Isa::kRows]), codes);
    }
  }

 private:
  static constexpr int kMiddle = 1 << 15;

  // Unused places are never looked up.
  void round_table(int64_t table_row, int row) {
    constexpr int kEntries = 1 << kBits;
    float entries[kEntries];
    load_floats(weight_.table, weight_.table_dtype, table_row * kEntries, kEntries, entries);
    const Rounding rounding(entries, kEntries, kMiddle - 1);
    entry_scale_[row] = rounding.scale();
    uint16_t integers[kEntries];
    rounding.round(entries, kEntries, kMiddle, integers);
    for (int i = 0; i < kEntries; ++i) tables_[0][row][i] = static_cast<uint8_t>(integers[i] >> 8);
    for (int i = 0; i < kEntries; ++i) tables_[1][row][i] = static_cast<uint8_t>(integers[i]);
  }

  const Weight& weight_;
  int64_t first_;
  alignas(64) float entry_scale_[kTileRows];
  alignas(64) float scale_[kTileRows];
  alignas(64) float zero_[kTileRows];
  alignas(64) uint8_t tables_[kBytes][kTileRows][16] = {};
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
