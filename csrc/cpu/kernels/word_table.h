// 512 words of four bytes, looked up for all lanes of several registers at once by permuting bytes (AVX-512 VBMI):
// gathering them takes twice as long.
//
// A permutation picks from 128 bytes by the low seven bits of each of 64 index bytes. So the table is kept as planes,
// byte p of all words, and four registers of indices are packed into one:
//
//   plane 0   [512] = 4 x 128 bytes, of which bits 7 and 8 of the index choose          index bytes of lane i:
//   ...                                                                                 register 0 | 1 | 2 | 3
//   plane 3   [512]
#pragma once

#include <cstdint>

#include "kernels/lanes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

class WordTable {
 public:
  static constexpr int kWords = 512;

  void set(const void* words) {
    const uint8_t* bytes = static_cast<const uint8_t*>(words);
    for (int plane = 0; plane < 4; ++plane) {
      for (int i = 0; i < kWords; ++i) planes_[plane][i] = bytes[4 * i + plane];
    }
  }

  // Every index becomes its word.
  template <int kRegisters>
  REQUANT_INLINE void look_up(Lanes (&lanes)[kRegisters]) const {
    static_assert(kRegisters % 4 == 0);
    constexpr int kGroups = kRegisters / 4;
    Bytes indices[kGroups], planes[4][kGroups];
    __mmask64 bit7[kGroups], bit8[kGroups];
    for (int group = 0; group < kGroups; ++group) {
      const Lanes even = lanes[4 * group] | lanes[4 * group + 2] << 16;
      const Lanes odd = lanes[4 * group + 1] | lanes[4 * group + 3] << 16;
      indices[group] = odd_bytes_from(bytes(odd << 8), bytes(even));
      const Bytes upper = odd_bytes_from(bytes(odd << 1), bytes(even >> 7));
      bit7[group] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(1));
      bit8[group] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(2));
    }
    unroll<0, 4>([&](auto plane) REQUANT_INLINE {
      Bytes quarters[4][kGroups];
      unroll<0, 4>([&](auto quarter) REQUANT_INLINE {
        const uint8_t* place = planes_[plane.value] + quarter.value * 128;
        const Bytes low = _mm512_load_si512(place), high = _mm512_load_si512(place + 64);
        for (int group = 0; group < kGroups; ++group) {
          quarters[quarter.value][group] = _mm512_permutex2var_epi8(low, indices[group], high);
        }
      });
      for (int group = 0; group < kGroups; ++group) {
        const Bytes lower = _mm512_mask_mov_epi8(quarters[0][group], bit7[group], quarters[1][group]);
        const Bytes upper = _mm512_mask_mov_epi8(quarters[2][group], bit7[group], quarters[3][group]);
        planes[plane.value][group] = _mm512_mask_mov_epi8(lower, bit8[group], upper);
      }
    });
    for (int group = 0; group < kGroups; ++group) {
      // Byte r of a lane of plane p becomes byte p of the lane of register r: two by two, then four by four.
      const Lanes p0 = words(planes[0][group]), p1 = words(planes[1][group]);
      const Lanes p2 = words(planes[2][group]), p3 = words(planes[3][group]);
      const Lanes low_even = words(odd_bytes_from(bytes(p1 << 8), bytes(p0)));
      const Lanes low_odd = words(odd_bytes_from(bytes(p1), bytes(p0 >> 8)));
      const Lanes high_even = words(odd_bytes_from(bytes(p3 << 8), bytes(p2)));
      const Lanes high_odd = words(odd_bytes_from(bytes(p3), bytes(p2 >> 8)));
      lanes[4 * group] = upper_half_from(high_even << 16, low_even);
      lanes[4 * group + 1] = upper_half_from(high_odd << 16, low_odd);
      lanes[4 * group + 2] = upper_half_from(high_even, low_even >> 16);
      lanes[4 * group + 3] = upper_half_from(high_odd, low_odd >> 16);
    }
  }

 private:
  using Bytes = __m512i;

  REQUANT_INLINE static Bytes bytes(Lanes a) { return reinterpret_cast<Bytes>(a); }
  REQUANT_INLINE static Lanes words(Bytes a) { return reinterpret_cast<Lanes>(a); }
  REQUANT_INLINE static Bytes odd_bytes_from(Bytes odd, Bytes even) {
    return _mm512_mask_mov_epi8(even, 0xaaaaaaaaaaaaaaaa, odd);
  }
  REQUANT_INLINE static Lanes upper_half_from(Lanes upper, Lanes lower) {
    return words(_mm512_mask_mov_epi16(bytes(lower), 0xaaaaaaaa, bytes(upper)));
  }

  alignas(64) uint8_t planes_[4][kWords];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
