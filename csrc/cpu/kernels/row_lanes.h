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
    unroll<0, kPairs>([&](auto i) REQUANT_INLINE {
      const int row = first_row + i.value * Isa::kRows;
      low_[i.value] = Isa::load(block + plane * kPlaneBytes + row * kUnitBytes);
      if constexpr (kBits == 3) high_[i.value] = Isa::load_bytes(block + kPlaneBytes + row * kStepInputs);
    });
    Isa::transpose_dwords(low_);
    if constexpr (kBits == 3) {
      Isa::transpose_dwords(high_);
      for (Words& bits : high_) bits = Isa::template shift_right<-2>(bits);
    }
  }

  // The pairs of the next step.
  REQUANT_INLINE void next(Weights (&weights)[kSteps][kPairs]) {
    unroll<0, kPairs>([&](auto pair) REQUANT_INLINE {
      Words& low = low_[pair.value];
      Words codes = low;
      if constexpr (kBits == 3) {
        Words& high = high_[pair.value];
        codes = Isa::select(Isa::splat_words(3), low, high);
        high = Isa::template shift_right<1>(high);
      }
      weights[0][pair.value] = Products::template from_codes<kBits, 0>(codes);
      low = Isa::template shift_right<Layout::kFieldBits>(low);
    });
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
    unroll<0, kPairs>([&](auto i) REQUANT_INLINE {
      const int row = first_row + i.value * Isa::kRows;
      low_[i.value] = Isa::load(block + plane * kPlaneBytes + row * kUnitBytes);
      if constexpr (kBits == 3) {
        const Words bits = Isa::load_bytes(block + kPlaneBytes + row * kStepInputs);
        // Bits 0..3 belong to steps 0..3, bits 8..11 to steps 4..7; they are wanted as bit 2 of either byte.
        const Words bytes = Isa::select(Isa::splat_words(0x000f), bits, Isa::template shift_right<-4>(bits));
        high_[i.value] = Isa::template shift_right<-2>(Isa::bit_and(bytes, Isa::splat_words(0x0f0f)));
      }
    });
  }

  // The pairs of the next step and of the one kDistance further.
  REQUANT_INLINE void next(Weights (&weights)[kSteps][kPairs]) {
    constexpr int kFieldMask = ((1 << Layout::kFieldBits) - 1) * 0x0101;
    Words parts[Format::kParts][kSteps][kPairs];
    unroll<0, kPairs>([&](auto slice) REQUANT_INLINE {
      Words& low = low_[slice.value];
      Words index = Isa::bit_and(low, Isa::splat_words(kFieldMask));
      low = Isa::template shift_right<Layout::kFieldBits>(low);
      if constexpr (kBits == 3) {
        Words& high = high_[slice.value];
        index = Isa::and_or(high, Isa::splat_words(0x0404), index);
        high = Isa::template shift_right<1>(high);
      }
      unroll<0, Format::kParts>([&](auto part) REQUANT_INLINE {
        const auto found = format_.look_up(index, first_slice_ + slice.value, 2 * part.value);
        parts[part.value][0][slice.value] = found.first;
        parts[part.value][1][slice.value] = found.second;
      });
    });
    unroll<0, kSteps>([&](auto step) REQUANT_INLINE {
      unroll<0, Format::kParts>([&](auto part)
                                    REQUANT_INLINE { Isa::transpose_dwords(parts[part.value][step.value]); });
      unroll<0, kPairs>([&](auto pair) REQUANT_INLINE {
        weights[step.value][pair.value] =
            Format::weights(parts[Format::kParts - 1][step.value][pair.value], parts[0][step.value][pair.value]);
      });
    });
  }

 private:
  const Format& format_;
  int first_slice_;
  Words low_[kPairs], high_[kPairs];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
