// Takes the codes of one slice of a block out of their planes (pictures: common/tile16.h).
#pragma once

#include "common/tile16.h"
#include "kernels/products.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// From the unit of `row` on, in a plane of a block.
inline const uint8_t* units(const uint8_t* block, int plane, int row) {
  return block + plane * kPlaneBytes + row * kUnitBytes;
}
// The high bits of 3-bit codes, likewise.
inline const uint8_t* high_bits(const uint8_t* block, int row) { return block + kPlaneBytes + row * kStepInputs; }

template <int kBits>
class Codes {
  using Layout = Block<kBits>;

 public:
  REQUANT_INLINE void load(const uint8_t* block, int slice) {
    unroll<0, Layout::kPlanes>([&](auto plane) REQUANT_INLINE {
      planes_[plane.value] = Isa::load(units(block, plane.value, slice * Isa::kRows));
    });
    if constexpr (kBits == 3) high_ = Isa::load_bytes(high_bits(block, slice * Isa::kRows));
  }

  // Where a code of this step stands in its word if it may stand anywhere in the low kUsableBits bits: fields that lie
  // there already need no shift.
  static constexpr int position(int step, int usable_bits) {
    const int positions = usable_bits < kBits ? 1 : (usable_bits - kBits) / Layout::kFieldBits + 1;
    return Layout::kFieldBits * (step % Layout::kStepsPerPlane % positions);
  }

  // One code per word, in the kBits bits from kPosition on; the other bits are arbitrary.
  template <int kStep, int kPosition>
  REQUANT_INLINE Words step() const {
    constexpr int kShift = Layout::kFieldBits * (kStep % Layout::kStepsPerPlane) - kPosition;
    const Words fields = Isa::template shift_right<kShift>(planes_[kStep / Layout::kStepsPerPlane]);
    if constexpr (kBits != 3) return fields;
    return Isa::select(Isa::splat_words(3 << kPosition), fields,
                       Isa::template shift_right<kStep - 2 - kPosition>(high_));
  }

  // Two codes per word, one in the low bits of each byte: those of steps kStep and kStep + kStepsPerPlane / 2, where
  // kStep is in the first half of its plane. Unless they are to be masked, the bits above are arbitrary.
  template <int kStep, bool kMasked = true>
  REQUANT_INLINE Words two_steps() const {
    constexpr int kShift = Layout::kFieldBits * (kStep % Layout::kStepsPerPlane);
    constexpr int kFieldMask = (1 << Layout::kFieldBits) - 1;
    const Words fields = Isa::template shift_right<kShift>(planes_[kStep / Layout::kStepsPerPlane]);
    const Words low_bits = Isa::splat_words(kFieldMask * 0x0101);
    if constexpr (kBits != 3) return kMasked ? Isa::bit_and(fields, low_bits) : fields;
    // Bits 0..3 of high | high << 4 belong to steps 0..3, bits 8..11 to steps 4..7.
    const Words bytes = Isa::select(Isa::splat_words(0x000f), high_, Isa::template shift_right<-4>(high_));
    const Words high_bits = Isa::bit_and(Isa::template shift_right<kStep - 2>(bytes), Isa::splat_words(0x0404));
    return Isa::and_or(fields, low_bits, high_bits);
  }

 private:
  Words planes_[Layout::kPlanes];
  Words high_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
