// From packed tiles to values, one row per lane (picture: common/trellis.h).
//
// A code computes `value(states, column)`, the fp32 values of 16 rows times kUnit. Where those are sums of bytes less a
// constant, it offers the bytes, too: they can be multiplied as integers. Other codes offer the Pairs of a tile, pairs
// of bf16 for every row: two halves of a value (kPairInputs = 1) or the values of two columns (2), times kPairUnit.
#pragma once

#include "common/trellis.h"
#include "kernels/conversion.h"
#include "kernels/lanes.h"
#ifdef __AVX512BF16__
#include "kernels/word_table.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

// x = 34038481 state + 76625530; the sum of its bytes less the middle of its range
struct OneMad {
  static constexpr int kValuesPerStep = 1;
  static constexpr float kUnit = 147.800537109375f;
  static constexpr bool kSumsBytes = true;
  static constexpr int kPairInputs = 0;
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
  static constexpr int kPairInputs = 1;
  // bf16 has three bits of mantissa less. They are cut off; this makes up for what is lost on average over all states,
  // and leaves an error of 0.15 % of the values' root mean square.
  static constexpr float kPairUnit = 1 / 1.00204f;

  explicit ThreeInst(const Trellis&) {}
  template <int kColumn>
  REQUANT_INLINE FloatLanes value(Lanes state) const {
    const Lanes x = product(state);
    return upper_half(x) + upper_half(x << 16);
  }

  // One by one, when they are asked for: all would not fit the register file.
  template <class States>
  class Pairs {
   public:
    REQUANT_INLINE Pairs(const ThreeInst&, const States& states) : states_(states) {}
    template <int kColumn>
    REQUANT_INLINE Lanes pair() const {
      const Lanes x = product(states_.template states<kColumn>(0));
      const SignedHalves in_place = reinterpret_cast<SignedHalves>(x) >> 3;
      constexpr uint32_t kBoth = 0x00010001;
      return (reinterpret_cast<Lanes>(in_place) & kBoth * (kMask >> 16)) ^ kBoth * (kFlip >> 16);
    }

   private:
    const States& states_;
  };

 private:
  static constexpr uint32_t kMask = 0x80000000u | 0x0fffu << 13, kFlip = 0x3b60u << 13 | 112u << 23;

  REQUANT_INLINE static Lanes product(Lanes state) { return state * 89226354u + 64248484u; }
  REQUANT_INLINE static FloatLanes upper_half(Lanes x) {
    const Lanes in_place = reinterpret_cast<Lanes>(reinterpret_cast<SignedLanes>(x) >> 3);
    return reinterpret_cast<FloatLanes>((in_place & kMask) ^ kFlip);
  }
};

// y = (state + 1) state; row (y >> 6) mod 512 of the codebook, its first value negated if y has bit 15
struct Hyb {
  static constexpr int kValuesPerStep = 2;
  static constexpr float kUnit = 1;
  static constexpr bool kSumsBytes = false;
  static constexpr int kPairInputs = 2;
  static constexpr float kPairUnit = 1;

  explicit Hyb(const Trellis& trellis) : codebook_(trellis.codebook) {
#ifdef __AVX512BF16__
    static_assert(WordTable::kWords == kRows);
    uint16_t rows[2 * kRows];
    store_floats(codebook_, Dtype::kBFloat16, 0, 2 * kRows, rows);
    pairs_.set(rows);
#endif
  }
  template <int kColumn>
  REQUANT_INLINE FloatLanes value(Lanes state) const {
    constexpr int kSecond = kColumn % 2;
    const Lanes y = (state + 1) * state, index = (y >> 5 & 2 * (kRows - 1)) + kSecond;
    const Lanes values = gather_lanes(codebook_, index);
    return reinterpret_cast<FloatLanes>(kSecond ? values : values ^ (y & 0x8000) << 16);
  }

#ifdef __AVX512BF16__
  template <class States>
  class Pairs {
    static constexpr int kSteps = kTrellisTile / kValuesPerStep;

   public:
    REQUANT_INLINE Pairs(const Hyb& code, const States& states) {
      Lanes flips[kSteps];
      unroll<0, kSteps>([&](auto step) REQUANT_INLINE {
        const Lanes state = states.template states<step.value * kValuesPerStep>(0), y = (state + 1) * state;
        pairs_[step.value] = y >> 6 & (kRows - 1);
        flips[step.value] = y & 0x8000;
      });
      code.pairs_.look_up(pairs_);
      unroll<0, kSteps>([&](auto step) REQUANT_INLINE { pairs_[step.value] ^= flips[step.value]; });
    }
    template <int kColumn>
    REQUANT_INLINE Lanes pair() const {
      return pairs_[kColumn / kValuesPerStep];
    }

   private:
    Lanes pairs_[kSteps];
  };
#endif

 private:
  static constexpr int kRows = 512;

  const float* codebook_;
#ifdef __AVX512BF16__
  WordTable pairs_;  // the rows in bf16, the first value in the low half
#endif
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
    constexpr int kShift = 16 * (kSource + 1) - kEnd;
    // Of even numbers of bits, two columns share a shift.
    if constexpr (kBits % 2 == 0 && kShift >= 8) return middle_bytes(sources_[kSource][part] >> (kShift - 8));
    return sources_[kSource][part] >> kShift & 0xffff;
  }

 private:
  Lanes sources_[kBits][kParts];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
