// Decoding with one row per lane: after a transposition by dwords, a register holds the same two neighbouring inputs of
// kLaneRows rows. Sums then need no horizontal addition, and an input is one broadcast value.
//
//   four slices      row 4s: inputs 01 23 45 67 | row 4s + 1: 01 23 45 67 | ...        slice s, kRows = 4 rows each
//   four pairs       inputs 2w 2w + 1 of every row: lane 4 r + s is row r of slice s    pair w
//
// A format offers `Rows`, which goes through the codes of kLaneRows rows plane by plane, in turns of kSteps steps.
#pragma once

#include "kernels/codes.h"
#include "kernels/lut.h"
#include "kernels/uniform.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kPairs = kStepInputs / 2;         // of a step
constexpr int kLaneRows = kPairs * Isa::kRows;  // rows of four slices

// The codes of one plane, pair by pair; uniform codes are transposed before they are decoded.
template <class Format>
class UniformRows {
  static constexpr int kBits = Format::kBits;
  using Layout = Block<kBits>;
  using Products = typename Format::Products;

 public:
  using Weights = typename Products::Weights;
  static constexpr int kTurns = Layout::kStepsPerPlane, kSteps = 1;
  static constexpr int kDistance = 0;  // between the steps of a turn

  explicit UniformRows(const Format&, int) {}

  // What is added to every code.
  static constexpr float offset() { return Products::template offset<kBits>(0); }

  REQUANT_INLINE void load(const uint8_t* block, int plane, int first_row) {
#pragma GCC unroll 4
    for (int i = 0; i < kPairs; ++i) low_[i] = Isa::load(units(block, plane, first_row + i * Isa::kRows));
    Isa::transpose_dwords(low_);
    if constexpr (kBits == 3) {
#pragma GCC unroll 4
      for (int i = 0; i < kPairs; ++i) high_[i] = Isa::load_bytes(high_bits(block, first_row + i * Isa::kRows));
      Isa::transpose_dwords(high_);
#pragma GCC unroll 4
      for (Words& bits : high_) bits = Isa::template shift_right<-2>(bits);
    }
  }

  // The pairs of the next step.
  REQUANT_INLINE void next(Weights (&weights)[kSteps][kPairs]) {
#pragma GCC unroll 4
    for (int pair = 0; pair < kPairs; ++pair) {
      Words& low = low_[pair];
      Words codes = low;
      if constexpr (kBits == 3) {
        Words& high = high_[pair];
        codes = Isa::select(Isa::splat_words(3), low, high);
        high = Isa::template shift_right<1>(high);
      }
      weights[0][pair] = Products::template from_codes<kBits, 0>(codes);
      low = Isa::template shift_right<Layout::kFieldBits>(low);
    }
  }

 private:
  Words low_[kPairs], high_[kPairs];
};

// Every row has a table of its own, so entries are looked up slice by slice and transposed afterwards.
template <class Format>
class LutRows {
  static constexpr int kBits = Format::kBits;
  using Layout = Block<kBits>;
  using Products = typename Format::Products;

 public:
  using Weights = typename Products::Weights;
  static constexpr int kTurns = Layout::kStepsPerPlane / 2, kSteps = 2;
  static constexpr int kDistance = kTurns;

  LutRows(const Format& format, int first_row) : format_(format), first_slice_(first_row / Isa::kRows) {}

  static constexpr float offset() { return 0; }

  REQUANT_INLINE void load(const uint8_t* block, int plane, int first_row) {
#pragma GCC unroll 4
    for (int i = 0; i < kPairs; ++i) {
      const int row = first_row + i * Isa::kRows;
      low_[i] = Isa::load(units(block, plane, row));
      if constexpr (kBits == 3) {
        const Words bits = Isa::load_bytes(high_bits(block, row));
        // Bits 0..3 belong to steps 0..3, bits 8..11 to steps 4..7; they are wanted as bit 2 of either byte.
        const Words bytes = Isa::select(Isa::splat_words(0x000f), bits, Isa::template shift_right<-4>(bits));
        high_[i] = Isa::template shift_right<-2>(Isa::bit_and(bytes, Isa::splat_words(0x0f0f)));
      }
    }
  }

  // The pairs of the next step and of the one kDistance further.
  REQUANT_INLINE void next(Weights (&weights)[kSteps][kPairs]) {
    constexpr int kFieldMask = ((1 << Layout::kFieldBits) - 1) * 0x0101;
    Words parts[Format::kParts][kSteps][kPairs];
#pragma GCC unroll 4
    for (int slice = 0; slice < kPairs; ++slice) {
      Words& low = low_[slice];
      Words index =
          kBits == 3 || !Format::Tables::kMasksIndices ? Isa::bit_and(low, Isa::splat_words(kFieldMask)) : low;
      low = Isa::template shift_right<Layout::kFieldBits>(low);
      if constexpr (kBits == 3) {
        Words& high = high_[slice];
        index = Isa::and_or(high, Isa::splat_words(0x0404), index);
        high = Isa::template shift_right<1>(high);
      }
#pragma GCC unroll 2
      for (int part = 0; part < Format::kParts; ++part) {
        const auto found = format_.tables().look_up(index, first_slice_ + slice, 2 * part);
        parts[part][0][slice] = found.first;
        parts[part][1][slice] = found.second;
      }
    }
#pragma GCC unroll 2
    for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 2
      for (auto& part : parts) Isa::transpose_dwords(part[step]);
#pragma GCC unroll 4
      for (int pair = 0; pair < kPairs; ++pair) {
        weights[step][pair] = Format::weights(parts[Format::kParts - 1][step][pair], parts[0][step][pair]);
      }
    }
  }

 private:
  const Format& format_;
  int first_slice_;
  Words low_[kPairs], high_[kPairs];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
