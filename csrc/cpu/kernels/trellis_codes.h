// From packed tiles to values, one row per lane (picture: common/trellis.h).
//
// A code computes `value(states, column)`, the fp32 values of 16 rows times kUnit. Where those are sums of bytes less a
// constant, it offers the bytes, too: they can be multiplied as integers.
#pragma once

#include "common/trellis.h"
#include "kernels/lanes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// x = 34038481 state + 76625530; the sum of its bytes less the middle of its range
struct OneMad {
  static constexpr int kValuesPerStep = 1;
  static constexpr float kUnit = 147.800537109375f;
  static constexpr bool kSumsBytes = true;
  static constexpr int kMiddle = 510;

  explicit OneMad(const Trellis&) {}
  REQUANT_INLINE Lanes bytes(Lanes state) const { return state * 34038481u + 76625530u; }
  template <int kColumn>
  REQUANT_INLINE FloatLanes value(Lanes state) const {
    return signed_to_floats(add_bytes(bytes(state), Lanes{} - kMiddle));
  }
};

// x = 89226354 state + 64248484; the sum of the fp16 halves of (x & 0x8fff8fff) ^ 0x3b603b60. Those are normal numbers:
// as fp32 their exponent and mantissa stand 13 bits higher and the exponent is larger by 112.
struct ThreeInst {
  static constexpr int kValuesPerStep = 1;
  static constexpr float kUnit = 1;
  static constexpr bool kSumsBytes = false;

  explicit ThreeInst(const Trellis&) {}
  template <int kColumn>
  REQUANT_INLINE FloatLanes value(Lanes state) const {
    const Lanes x = state * 89226354u + 64248484u;
    return upper_half(x) + upper_half(x << 16);
  }

 private:
  REQUANT_INLINE static FloatLanes upper_half(Lanes x) {
    const Lanes in_place = reinterpret_cast<Lanes>(reinterpret_cast<SignedLanes>(x) >> 3);
    constexpr uint32_t kMask = 0x80000000u | 0x0fffu << 13, kFlip = 0x3b60u << 13 | 112u << 23;
    return reinterpret_cast<FloatLanes>((in_place & kMask) ^ kFlip);
  }
};

// y = (state + 1) state; row (y >> 6) mod 512 of the codebook, its first value negated if y has bit 15
struct Hyb {
  static constexpr int kValuesPerStep = 2;
  static constexpr float kUnit = 1;
  static constexpr bool kSumsBytes = false;

  explicit Hyb(const Trellis& trellis) : codebook_(trellis.codebook) {}
  template <int kColumn>
  REQUANT_INLINE FloatLanes value(Lanes state) const {
    constexpr int kSecond = kColumn % 2;
    const Lanes y = (state + 1) * state, index = (y >> 5 & 1022) + kSecond;
    const FloatLanes values = gather_lanes(codebook_, index);
    if constexpr (kSecond) return values;
    return reinterpret_cast<FloatLanes>(reinterpret_cast<Lanes>(values) ^ (y & 0x8000) << 16);
  }

 private:
  const float* codebook_;
};

// The states of one tile, column by column.
template <int kBits, int kValuesPerStep>
class TileStates {
 public:
  REQUANT_INLINE explicit TileStates(const uint8_t* tile) {
    Lanes first[kParts], second[kParts];
    unroll<0, kParts>([&](auto p) REQUANT_INLINE {
      first[p.value] = load_lanes(tile + 4 * kLanes * p.value);
      if constexpr (kBits == 3) second[p.value] = load_words(tile + 64 + 2 * kLanes * p.value);
      if constexpr (kBits == 4) second[p.value] = load_lanes(tile + 64 + 4 * kLanes * p.value);
    });
    join_rows(kBits == 2 ? first : second, first, sources_[0]);
    unroll<0, kParts>([&](auto p) REQUANT_INLINE {
      sources_[1][p.value] = first[p.value];
      if constexpr (kBits == 3) sources_[2][p.value] = first[p.value] << 16 | second[p.value];
      if constexpr (kBits == 4) {
        sources_[2][p.value] = first[p.value] << 16 | second[p.value] >> 16;
        sources_[3][p.value] = second[p.value];
      }
    });
  }

  // Puts the rows of every part into the order that transpose_groups wants.
  REQUANT_INLINE void order_rows_for_groups() {
    for (auto& source : sources_) {
      for (Lanes& part : source) part = rows_for_groups(part);
    }
  }

  template <int kColumn>
  REQUANT_INLINE Lanes states(int part) const {
    constexpr int kEnd = kBits * kValuesPerStep * (kColumn / kValuesPerStep + 1);
    constexpr int kSource = (kEnd - 1) / 16;
    return sources_[kSource][part] >> (16 * (kSource + 1) - kEnd) & 0xffff;
  }

 private:
  Lanes sources_[kBits][kParts];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
