// Which codes of `tile16` a lane takes, and how fields of their bits become pairs of 16-bit numbers.
//
// A lane of mma.m16n8k16 holds rows g and g + 8 of operand A (g = lane / 4) and, of every 16 inputs, those numbered
// 2 t, 2 t + 1, 2 t + 8, 2 t + 9 (t = lane % 4). That is dword t of a unit: in its two halves stand inputs 2 t and
// 2 t + 1 of every 8-input step. So lane (g, t) takes dword t of row g: a warp reads 128 contiguous bytes of
// shared memory without conflicts, and every 16 consecutive inputs are one product, whatever the group size.
//
//   plane of 16 rows     byte 0    4    8    12    16
//                        row 0 | t=0  t=1  t=2  t=3 |      lanes 0..3
//                        row 1 | t=0  ...           |      lanes 4..7
//                        ...
//                        row 7 |                    |      lanes 28..31     then rows 8..15
#pragma once

#include "common/tile16.h"
#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

// What the weights of all such formats have in common.
struct Tile16Weights {
  static constexpr int kLaneBytes = 4;  // from one lane's first dword of a span to the next lane's
  static constexpr bool kRotated = false;
  __device__ __forceinline__ static int place(int byte) { return byte; }  // of a span, in shared memory
};

// Where the codes of 16-input step kStep of a span stand: two fields, kField and kField + 1, of one dword a row.
template <int kBits, int kStep>
struct StepPlace {
  using Layout = Block<kBits>;
  static constexpr int kStepsPerUnit = 16 / Layout::kFieldBits / 2;
  static constexpr int kStepsPerBlock = kBlockInputs / 16;
  static constexpr int kBlockByte = kStep / kStepsPerBlock * Layout::kBytes;
  static constexpr int kPlaneByte = kBlockByte + kStep % kStepsPerBlock / kStepsPerUnit * kPlaneBytes;
  static constexpr int kField = kStep % kStepsPerUnit * 2;

  // Dword t of row g (half 0) or g + 8 (half 1). `codes` is the span, from the lane's first dword on.
  __device__ __forceinline__ static uint32_t word(const uint8_t* codes, int half) {
    return *reinterpret_cast<const uint32_t*>(codes + kPlaneByte + half * kPlaneBytes / 2);
  }
  // 3 bits: bytes 2 t and 2 t + 1 of that row's high bits, half as far on as its dword.
  __device__ __forceinline__ static uint32_t high_bits(const uint8_t* codes, int half, int lane) {
    return *reinterpret_cast<const uint16_t*>(codes + kBlockByte + kPlaneBytes + half * kPlaneBytes / 4 - 2 * lane);
  }
};

// Field kPosition of both halves of `word`, less kOffset, as two numbers. Fields stay where they stand in the mantissa,
// as far as it reaches, and a multiply-add takes their position and the magic number off, exactly.
template <class Number, int kFieldBits, int kPosition, int kOffset>
__device__ __forceinline__ uint32_t field_pair(uint32_t word) {
  using Type = Numbers<Number>;
  constexpr int kWindowBits = Type::kMantissaBits / kFieldBits * kFieldBits;
  constexpr int kShift = kPosition * kFieldBits / kWindowBits * kWindowBits;
  constexpr int kFieldShift = kPosition * kFieldBits - kShift;
  constexpr float kFactor = 1.0f / (1 << kFieldShift);
  constexpr uint32_t kFactors = constant_pair<Number>(kFactor);
  constexpr uint32_t kConstants = constant_pair<Number>(-(Type::kMagicValue * kFactor + kOffset));
  const uint32_t magic = and_or(word >> kShift, twice(((1u << kFieldBits) - 1) << kFieldShift), Type::kMagic);
  return kFieldShift == 0 ? Type::add(magic, kConstants) : Type::multiply_add(magic, kFactors, kConstants);
}

// The 3-bit codes of a dword and of the 16 bits that belong to it, every other one, in nibbles: those in even fields,
// or those in odd ones. Nibble i of a half is field 2 i (+ 1).
template <bool kOdd>
__device__ __forceinline__ uint32_t three_bit_nibbles(uint32_t low, uint32_t spread) {
  return kOdd ? and_or(spread << 1, 0x44444444, low >> 2 & 0x33333333)
              : and_or(spread << 2, 0x44444444, low & 0x33333333);
}

// Bits 2 i and 2 i + 1 of both bytes, as bits 4 i and 4 i + 1 of both halves.
__device__ __forceinline__ uint32_t spread_high_bits(uint32_t high) {
  const uint32_t halves = select_bytes(high, 0, 0x4140);  // 0 0 b1 b0 -> 0 b1 0 b0
  // What moves up by n bits is added (2^n - 1) times: a multiply-add instead of a shift and two masks.
  const uint32_t nibbles = halves + (halves & 0x00f000f0) * 15;  // four bits to a byte
  return nibbles + (nibbles & 0x0c0c0c0c) * 3;                   // two bits to a nibble
}

// An 8-bit code less 128 in a type whose mantissa is shorter: 16 times its upper half, and its lower half.
template <class Number, int kPosition>
__device__ __forceinline__ uint32_t eight_bit_pair(uint32_t word) {
  using Type = Numbers<Number>;
  constexpr uint32_t kSixteen = constant_pair<Number>(16);
  constexpr uint32_t kUpper = constant_pair<Number>(-(16 * Type::kMagicValue + Type::kMagicValue + 128));
  const uint32_t upper = and_or(word >> (8 * kPosition + 4), 0x000f000f, Type::kMagic);
  const uint32_t lower = and_or(word >> (8 * kPosition), 0x000f000f, Type::kMagic);
  return Type::add(lower, Type::multiply_add(upper, kSixteen, kUpper));
}

}  // namespace requant::cuda
