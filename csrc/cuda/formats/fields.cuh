// Codes of `tile16` in registers, and how fields of their bits become pairs of 16-bit numbers.
//
// A lane of mma.m16n8k16 holds rows g and g + 8 of operand A (g = lane / 4) and, of every 16 inputs, those numbered
// 2 t, 2 t + 1, 2 t + 8, 2 t + 9 (t = lane % 4). That is dword t of a unit: in its two halves stand inputs 2 t and
// 2 t + 1 of every 8-input step. So lane (g, t) loads dword t of row g, eight rows of 16 bytes are one request of 128
// contiguous bytes, and every 16 consecutive inputs are one product, whatever the group size.
//
//   plane of 16 rows     byte 0    4    8    12    16
//                        row 0 | t=0  t=1  t=2  t=3 |      lanes 0..3
//                        row 1 | t=0  ...           |      lanes 4..7
//                        ...
//                        row 7 |                    |      lanes 28..31     then rows 8..15: the second half
#pragma once

#include "common/tile16.h"
#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

// One lane's codes of a span: rows g (half 0) and g + 8 (half 1).
template <int kBits>
struct TileCodes {
  static constexpr int kFieldBits = Block<kBits>::kFieldBits;
  static constexpr int kStepsPerWord = 16 / kFieldBits / 2;  // of 16 inputs
  static constexpr int kWords = kSpanInputs / 16 / kStepsPerWord;
  static constexpr int kHighWords = kBits == 3 ? kWords : 0;
  static constexpr int kBlocks = kSpanInputs / kBlockInputs;
  static constexpr int kWordsPerBlock = kWords / kBlocks;
  static constexpr int kRegisters = 2 * (kWords + kHighWords);

  uint32_t low[2][kWords];
  uint32_t high[2][kBits == 3 ? kWords : 1];  // 3 bits: 16 bits of the second plane each

  // Loads the span's blocks first_block and first_block + 1; those from `blocks` on count as zeros.
  __device__ void load(const uint32_t* tile_codes, int first_block, int blocks, int lane) {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const uint32_t* codes = tile_codes + (first_block + block) * (Block<kBits>::kBytes / 4);
      const bool present = first_block + block < blocks;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int word = 0; word < kWordsPerBlock; ++word) {
          low[half][block * kWordsPerBlock + word] =
              present ? load_once(codes + word * (kPlaneBytes / 4) + half * kWarpLanes + lane) : 0;
        }
        if constexpr (kBits == 3) {
          const uint16_t* bits = reinterpret_cast<const uint16_t*>(codes + kPlaneBytes / 4);
          high[half][block] = present ? load_once(bits + half * kWarpLanes + lane) : 0;
        }
      }
    }
  }
};

// Field kPosition of both halves of `word`, less kOffset, as two numbers. Fields stay where they stand in the mantissa, as
// far as it reaches, and a multiply-add takes their position and the magic number off, exactly.
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

// A 3-bit code less 4: a 2-bit field of `low`, and bit kPosition of the two bytes in `high` for the value of 4.
template <class Number, int kPosition>
__device__ __forceinline__ uint32_t three_bit_pair(uint32_t low, uint32_t high) {
  using Type = Numbers<Number>;
  constexpr int kBit = kPosition % 4 + 2;  // where it is put in the mantissa: every constant is exact
  constexpr float kFactor = 4.0f / (1 << kBit);
  constexpr uint32_t kFactors = constant_pair<Number>(kFactor);
  const uint32_t spread = select_bytes(high, 0, 0x4140);  // byte 0 -> low half, byte 1 -> high half
  const uint32_t magic = and_or(kPosition < 4 ? spread << 2 : spread >> 2, twice(1u << kBit), Type::kMagic);
  const uint32_t rest = field_pair<Number, 2, kPosition, 4 + static_cast<int>(Type::kMagicValue * kFactor)>(low);
  return Type::multiply_add(magic, kFactors, rest);
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
