// Format `lut` as operand A of the matrix product: table entries as 16-bit numbers, looked up with byte permutations.
//
// The table of a row stands in registers, low and high bytes apart; four codes in the nibbles of a selector fetch four
// low bytes and four high bytes, and two more permutations put them together. No memory, so no bank conflicts:
//
//   selector     | c3 | c2 | c1 | c0 |         fields of both halves of a dword: c0, c1 of input 2 t, c2, c3 of 2 t + 1
//   low bytes    | l3 | l2 | l1 | l0 |         one permutation of eight entries; two and a choice of sixteen
//   high bytes   | h3 | h2 | h1 | h0 |
//   pairs        | h2 l2 | h0 l0 |  | h3 l3 | h1 l1 |
#pragma once

#include "cuda/accumulators.cuh"
#include "cuda/formats/fields.cuh"

namespace requant::cuda {

template <int kCodeBits, class NumberType, Groups kGroupKind>
class LutWeights : public Tile16Weights {
 public:
  using Number = NumberType;
  static constexpr int kBits = kCodeBits;
  static constexpr bool kHasZero = false;
  static constexpr Groups kGroups = kGroupKind;

  // Entries are multiplied by a power of two that brings a row's largest one near 1: bf16 entries fit into fp16, too.
  __device__ LutWeights(const LinearParameters& p, int64_t tile, int lane) : lane_(lane) {
    const Weight& weight = p.weight;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t first = weight.shared_table ? 0 : (tile * 16 + lane / 4 + 8 * half) * kEntries;
      float entries[kEntries], largest = 0;
      load_entries(weight, first, entries);
#pragma unroll
      for (int code = 0; code < kEntries; ++code) largest = fmaxf(largest, fabsf(entries[code]));
      const int exponent = max(static_cast<int>(__float_as_uint(largest) >> 23), 127 - kLargestExponent) - 127;
      const float factor = power_of_two(-min(exponent, kLargestExponent));
      row_scale_[half] = power_of_two(min(exponent, kLargestExponent));
#pragma unroll
      for (int quad = 0; quad < kQuads; ++quad) {
        const float* four = entries + 4 * quad;
        const uint32_t first_two = Numbers<Number>::pair(four[0] * factor, four[1] * factor);
        const uint32_t last_two = Numbers<Number>::pair(four[2] * factor, four[3] * factor);
        low_[half][quad] = select_bytes(first_two, last_two, 0x6420);
        high_[half][quad] = select_bytes(first_two, last_two, 0x7531);
      }
    }
  }

  __device__ __forceinline__ float row_scale(int half) const { return row_scale_[half]; }

  // Operand A of inputs 16 kStep .. 16 kStep + 15 of a span; `codes` is the span from the lane's first dword on.
  template <int kStep>
  __device__ __forceinline__ void fragment(const uint8_t* codes, uint32_t (&a)[4]) const {
    using Place = StepPlace<kBits, kStep>;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = Place::word(codes, half);
      if constexpr (kBits == 4) {
        const Quad quad = look_up<Place::kField / 2>(word, half);
        a[half] = first_pair(quad);
        a[half + 2] = second_pair(quad);
      } else {
        // Even fields begin an 8-input step, odd ones begin the next: two quads serve two steps.
        constexpr int kQuad = Place::kField / 4;
        constexpr bool kSecond = Place::kField % 4 != 0;
        uint32_t even = word & 0x33333333, odd = word >> 2 & 0x33333333;
        if constexpr (kBits == 3) {
          const uint32_t spread = spread_high_bits(Place::high_bits(codes, half, lane_));
          even = three_bit_nibbles<false>(word, spread);
          odd = three_bit_nibbles<true>(word, spread);
        }
        const Quad evens = look_up<kQuad>(even, half), odds = look_up<kQuad>(odd, half);
        a[half] = kSecond ? second_pair(evens) : first_pair(evens);
        a[half + 2] = kSecond ? second_pair(odds) : first_pair(odds);
      }
    }
  }

 private:
  static constexpr int kEntries = 1 << kBits;
  static constexpr int kQuads = kEntries / 4;
  static constexpr int kLargestExponent = 120;

  struct Quad {
    uint32_t low;
    uint32_t high;
  };

  // One row's table from entry `first` on, four entries at a time and with one look at their dtype.
  __device__ __forceinline__ static void load_entries(const Weight& weight, int64_t first, float (&entries)[kEntries]) {
    if (weight.table_dtype == Dtype::kFloat32) {
      const auto* quads = reinterpret_cast<const float4*>(static_cast<const float*>(weight.table) + first);
#pragma unroll
      for (int quad = 0; quad < kQuads; ++quad) {
        const float4 four = __ldg(quads + quad);
        entries[4 * quad] = four.x;
        entries[4 * quad + 1] = four.y;
        entries[4 * quad + 2] = four.z;
        entries[4 * quad + 3] = four.w;
      }
    } else if (weight.table_dtype == Dtype::kFloat16) {
      load_16_bit_entries<__half>(weight, first, entries);
    } else {
      load_16_bit_entries<__nv_bfloat16>(weight, first, entries);
    }
  }

  template <class Entry>
  __device__ __forceinline__ static void load_16_bit_entries(const Weight& weight, int64_t first,
                                                             float (&entries)[kEntries]) {
    const auto* quads = reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(weight.table) + first);
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      const uint2 four = __ldg(quads + quad);
#pragma unroll
      for (int entry = 0; entry < 4; ++entry) {
        const uint32_t pair = entry < 2 ? four.x : four.y;
        entries[4 * quad + entry] = Numbers<Entry>::to_float(static_cast<uint16_t>(pair >> entry % 2 * 16));
      }
    }
  }

  __device__ static float power_of_two(int exponent) { return __uint_as_float((127u + exponent) << 23); }
  __device__ static uint32_t first_pair(const Quad& quad) { return select_bytes(quad.low, quad.high, 0x6240); }
  __device__ static uint32_t second_pair(const Quad& quad) { return select_bytes(quad.low, quad.high, 0x7351); }

  // The entries of nibbles 2 kQuad and 2 kQuad + 1 of the low half of `nibbles`, then of the high half.
  template <int kQuad>
  __device__ __forceinline__ Quad look_up(uint32_t nibbles, int half) const {
    const uint32_t codes = select_bytes(nibbles, 0, 0x3120);
    if constexpr (kBits < 4) {
      const uint32_t selector = codes >> 16 * kQuad;
      return {select_bytes(low_[half][0], low_[half][kQuads - 1], selector),
              select_bytes(high_[half][0], high_[half][kQuads - 1], selector)};
    } else {
      const uint32_t selector = (codes & 0x77777777) >> 16 * kQuad;
      const uint32_t choice = and_or(codes >> 1, 0x44444444, 0x32103210) >> 16 * kQuad;
      return {look_up_16(low_[half], selector, choice), look_up_16(high_[half], selector, choice)};
    }
  }

  // `choice` takes byte i of the first eight entries' result, or of the last eight's.
  __device__ static uint32_t look_up_16(const uint32_t (&bytes)[kQuads], uint32_t selector, uint32_t choice) {
    return select_bytes(select_bytes(bytes[0], bytes[1], selector),
                        select_bytes(bytes[kQuads - 2], bytes[kQuads - 1], selector), choice);
  }

  uint32_t low_[2][kQuads];
  uint32_t high_[2][kQuads];
  float row_scale_[2];
  int lane_;
};

}  // namespace requant::cuda
