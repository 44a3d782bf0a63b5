// How weights meet inputs. All kinds accumulate in fp32. The weights of a slice and a step of eight inputs are one or
// two registers, each with the same few inputs for every row:
//
//                      registers per step                        a step of inputs is stored as
//   Fp32Products       fp32: even inputs, odd inputs             0 2 4 6 1 3 5 7
//   Bf16Products       bf16: two products per lane               0 1 2 3 4 5 6 7
//   Bf16ByteProducts   bf16: low bits and top bits of codes      0 1 2 3 4 5 6 7
//
// A kind tells how integer codes become weights: `from_codes` gives code + offset, whichever offset is cheapest.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kMostColumns = sizeof(Isa::Floats) / sizeof(float);  // tokens side by side in a register

using Words = Isa::Words;
using Floats = Isa::Floats;

struct Fp32Products {
  using Input = float;
  using ByteProducts = Fp32Products;
  // Of the batch kernel: sums that fit the register file, and one register.
  static constexpr int kPassTokens = kMostColumns < 8 ? kMostColumns : 8;
  using Register = Floats;
  static constexpr int kRegisters = 2;
  static constexpr int kRegisterInputs = kStepInputs / kRegisters;
  struct Weights {
    Register parts[kRegisters];
  };

  static constexpr int kUsableBits = 0;  // codes must stand in the lowest bits
  template <int kBits>
  static constexpr float offset(int) {
    return 0;
  }

  // Codes stand in kBits bits of each word from kPosition on; the others are to be ignored.
  template <int kBits, int kPosition>
  REQUANT_INLINE static Weights from_codes(Words codes) {
    const Words masked = Isa::bit_and(codes, Isa::splat_words((1 << kBits) - 1));
    return {{Isa::even_integers(masked), Isa::odd_integers(masked)}};
  }
  REQUANT_INLINE static Weights from_bf16(Words high) { return {{Isa::even_floats(high), Isa::odd_floats(high)}}; }
  REQUANT_INLINE static Weights from_halves(Words high, Words low) {
    return {{Isa::even_floats(high, low), Isa::odd_floats(high, low)}};
  }

  // The same inputs for every row.
  REQUANT_INLINE static Register repeat(const float* inputs) { return Isa::repeat(inputs); }
  REQUANT_INLINE static Floats multiply_add(Register weights, Register inputs, Floats sum) {
    return Isa::multiply_add(weights, inputs, sum);
  }
  // Puts `count` inputs, a multiple of eight, in order.
  static void arrange(const float* inputs, int64_t count, float* arranged) {
    for (int64_t step = 0; step < count; step += kStepInputs) {
      for (int i = 0; i < kStepInputs; ++i) arranged[step + i] = inputs[step + (2 * i) % kStepInputs + i / 4];
    }
  }
  // Where input i of a step is put.
  static int64_t place_in_step(int64_t i) { return i / 2 + i % 2 * kRegisterInputs; }

  // With one row per lane, a step is kRegisters registers for each pair of inputs; each meets one of these.
  using PairInput = float;
  static PairInput pair_input(const float* inputs) { return *inputs; }
  REQUANT_INLINE static Register splat(const PairInput* input) { return Isa::splat(*input); }

  REQUANT_INLINE static void store(Register weights, float* panel) { Isa::store(panel, weights); }
  REQUANT_INLINE static Register load(const float* panel) { return Isa::load(panel); }
};

#ifdef __AVX512BF16__
struct Bf16ByteProducts;

struct Bf16Products {
  using Input = uint16_t;
  using ByteProducts = Bf16ByteProducts;  // of codes of 8 bits and one token
  static constexpr int kPassTokens = 16;
  using Register = Words;
  static constexpr int kRegisters = 1;
  static constexpr int kRegisterInputs = kStepInputs;
  struct Weights {
    Register parts[kRegisters];
  };

  // Up to 7 bits: behind the sign and exponent of 128, a code in the low mantissa bits of a bf16 reads 128 + code.
  // If it stands `position` bits higher, the exponent of 2^(7 - position) gives 2^(7 - position) + code.
  static constexpr int kUsableBits = 7;
  template <int kBits>
  static constexpr float offset(int position) {
    return kBits < 8 ? static_cast<float>(128 >> position) : 0.0f;
  }

  template <int kBits, int kPosition>
  REQUANT_INLINE static Weights from_codes(Words codes) {
    if constexpr (kBits < 8) {
      constexpr int kMask = ((1 << kBits) - 1) << kPosition, kExponent = (127 + 7 - kPosition) << 7;
      return {{Isa::and_or(codes, Isa::splat_words(kMask), Isa::splat_words(kExponent))}};
    } else {
      const Fp32Products::Weights floats = Fp32Products::from_codes<kBits, 0>(codes);
      return {{Isa::join_bf16(floats.parts[0], floats.parts[1])}};
    }
  }
  REQUANT_INLINE static Weights from_bf16(Words high) { return {{high}}; }

  REQUANT_INLINE static Register repeat(const uint16_t* inputs) { return Isa::repeat(inputs); }
  REQUANT_INLINE static Floats multiply_add(Register weights, Register inputs, Floats sum) {
    return Isa::multiply_add_bf16(weights, inputs, sum);
  }
  // The inputs are bf16 values: their upper halves are all of them.
  static void arrange(const float* inputs, int64_t count, uint16_t* arranged) {
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, inputs + i, sizeof bits);
      arranged[i] = static_cast<uint16_t>(bits >> 16);
    }
  }

  static int64_t place_in_step(int64_t i) { return i; }

  using PairInput = uint32_t;  // two neighbouring inputs
  static PairInput pair_input(const float* inputs) {
    uint32_t bits[2];
    std::memcpy(bits, inputs, sizeof bits);
    return bits[0] >> 16 | (bits[1] & 0xffff0000);
  }
  REQUANT_INLINE static Register splat(const PairInput* input) { return _mm512_set1_epi32(static_cast<int>(*input)); }

  REQUANT_INLINE static void store(Register weights, uint16_t* panel) { _mm512_storeu_si512(panel, weights); }
  REQUANT_INLINE static Register load(const uint16_t* panel) {
    return Isa::load(reinterpret_cast<const uint8_t*>(panel));
  }
};

// Codes of 8 bits have one bit more than a mantissa has. For one token, two products cost less than a conversion does:
// the low 7 bits read 128 + low behind the exponent of 128, and the top bit alone is the last bit of that exponent,
// which makes it 128 or 256.
struct Bf16ByteProducts : Bf16Products {
  static constexpr int kRegisters = 2;
  static constexpr int kRegisterInputs = 0;  // both meet the same inputs
  struct Weights {
    Register parts[kRegisters];
  };

  template <int>
  static constexpr float offset(int) {
    return 256.0f;
  }

  template <int kBits, int kPosition>
  REQUANT_INLINE static Weights from_codes(Words codes) {
    static_assert(kBits == 8 && kPosition == 0);
    const Words exponent = Isa::splat_words((127 + 7) << 7);
    return {
        {Isa::and_or(codes, Isa::splat_words(0x7f), exponent), Isa::and_or(codes, Isa::splat_words(0x80), exponent)}};
  }
};
#endif

// Applies scale and zero of the selected group to one slice. The format has Fp32Products, so its offsets are zero.
template <class Format>
class Scaled {
 public:
  REQUANT_INLINE Scaled(const Format& format, int slice)
      : scale_(Isa::splat_rows(format.scales() + slice * Isa::kRows)),
        zero_(Format::kCentered ? Isa::splat_rows(format.zeros() + slice * Isa::kRows) : scale_) {}

  REQUANT_INLINE Floats operator()(Floats decoded) const {
    return Isa::multiply(Format::kCentered ? Isa::subtract(decoded, zero_) : decoded, scale_);
  }

 private:
  Floats scale_;
  Floats zero_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
