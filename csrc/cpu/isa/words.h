// Registers of 16-bit integers, as wide as the instruction set has them: what the trellis encoder computes with.
//
//   add, subtract        unsigned, saturating
//   difference           signed, saturating
//   square               (a * a + 2^14) >> 15 of a signed a, as an unsigned number
//   keep_smaller         least = min(least, candidate); where the candidate is less, its place becomes the given one
//   Repeated             of `values`: repeat(first, shift) has values[first + (i >> shift)] in lane i; shift is at
//   least 2
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

#if defined(__AVX512BW__)

struct Words16 {
  static constexpr int kLanes = 32;
  using Register = __m512i;

  static Register load(const uint16_t* a) { return _mm512_loadu_si512(a); }
  static void store(uint16_t* destination, Register a) { _mm512_storeu_si512(destination, a); }
  static Register splat(int value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }
  static Register add(Register a, Register b) { return _mm512_adds_epu16(a, b); }
  static Register subtract(Register a, Register b) { return _mm512_subs_epu16(a, b); }
  static Register minimum(Register a, Register b) { return _mm512_min_epu16(a, b); }
  static Register difference(Register a, Register b) { return _mm512_subs_epi16(a, b); }
  static Register square(Register a) { return _mm512_mulhrs_epi16(a, a); }
  static Register shift_left(Register a, int bits) { return _mm512_sll_epi16(a, _mm_cvtsi32_si128(bits)); }
  static Register bit_or(Register a, Register b) { return _mm512_or_si512(a, b); }
  static void keep_smaller(Register& least, Register& place, Register candidate, Register candidate_place) {
    place = _mm512_mask_mov_epi16(place, _mm512_cmplt_epu16_mask(candidate, least), candidate_place);
    least = _mm512_min_epu16(least, candidate);
  }
  class Repeated {
   public:
    explicit Repeated(Register values) : values_(values) {}
    Register repeat(int first, int shift) const {
      const Register place = _mm512_srl_epi16(lanes(), _mm_cvtsi32_si128(shift));
      return _mm512_permutexvar_epi16(_mm512_add_epi16(place, splat(first)), values_);
    }

   private:
    Register values_;
  };

 private:
  static Register lanes() {
    return _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9,
                            8, 7, 6, 5, 4, 3, 2, 1, 0);
  }
};

#elif defined(__AVX2__)

struct Words16 {
  static constexpr int kLanes = 16;
  using Register = __m256i;

  static Register load(const uint16_t* a) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)); }
  static void store(uint16_t* destination, Register a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(destination), a);
  }
  static Register splat(int value) { return _mm256_set1_epi16(static_cast<int16_t>(value)); }
  static Register add(Register a, Register b) { return _mm256_adds_epu16(a, b); }
  static Register subtract(Register a, Register b) { return _mm256_subs_epu16(a, b); }
  static Register minimum(Register a, Register b) { return _mm256_min_epu16(a, b); }
  static Register difference(Register a, Register b) { return _mm256_subs_epi16(a, b); }
  static Register square(Register a) { return _mm256_mulhrs_epi16(a, a); }
  static Register shift_left(Register a, int bits) { return _mm256_sll_epi16(a, _mm_cvtsi32_si128(bits)); }
  static Register bit_or(Register a, Register b) { return _mm256_or_si256(a, b); }
  static void keep_smaller(Register& least, Register& place, Register candidate, Register candidate_place) {
    const Register smaller_one = _mm256_min_epu16(least, candidate);
    place = _mm256_blendv_epi8(candidate_place, place, _mm256_cmpeq_epi16(smaller_one, least));
    least = smaller_one;
  }
  class Repeated {
   public:
    explicit Repeated(Register values) { store(values_, values); }
    Register repeat(int first, int shift) const {
      int64_t four;
      std::memcpy(&four, values_ + first, sizeof four);
      // The bytes of value v are 2 v and 2 v + 1.
      const Register place = _mm256_slli_epi16(_mm256_srl_epi16(lanes(), _mm_cvtsi32_si128(shift)), 1);
      const Register bytes = _mm256_or_si256(place, _mm256_slli_epi16(_mm256_add_epi16(place, splat(1)), 8));
      return _mm256_shuffle_epi8(_mm256_set1_epi64x(four), bytes);
    }

   private:
    alignas(32) uint16_t values_[kLanes + 4];  // four are read wherever one is needed
  };

 private:
  static Register lanes() { return _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
};

#else

// The compiler's portable vectors of 16 bytes.
struct Words16 {
  static constexpr int kLanes = 8;
  using Register = uint16_t __attribute__((vector_size(16)));

  static Register load(const uint16_t* a) {
    Register result;
    std::memcpy(&result, a, sizeof result);
    return result;
  }
  static void store(uint16_t* destination, Register a) { std::memcpy(destination, &a, sizeof a); }
  static Register splat(int value) { return Register{} + static_cast<uint16_t>(value); }
  static Register add(Register a, Register b) {
    const Register sum = a + b;
    return sum | (sum < a);
  }
  static Register subtract(Register a, Register b) { return (a - b) & (a >= b); }
  static Register minimum(Register a, Register b) { return select(a < b, a, b); }
  static Register difference(Register a, Register b) {
    const Register result = a - b;
    // Overflown: a and b have different signs, and the result does not have that of a. Then the limit on a's side.
    const Register overflown = Register{} - (((a ^ b) & (a ^ result)) >> 15);
    return select(overflown, (a >> 15) + static_cast<uint16_t>(0x7fff), result);
  }
  static Register square(Register a) {
    const Wide wide = __builtin_convertvector(reinterpret_cast<Signed>(a), Wide);
    return __builtin_convertvector((wide * wide + (1 << 14)) >> 15, Register);
  }
  static Register shift_left(Register a, int bits) { return a << static_cast<uint16_t>(bits); }
  static Register bit_or(Register a, Register b) { return a | b; }
  static void keep_smaller(Register& least, Register& place, Register candidate, Register candidate_place) {
    const Register less = candidate < least;
    place = select(less, candidate_place, place);
    least = select(less, candidate, least);
  }
  class Repeated {
   public:
    explicit Repeated(Register values) : values_(values) {}
    Register repeat(int first, int shift) const {
      const uint16_t low = values_[first], high = values_[first + (4 >> shift)];
      return Register{low, low, low, low, high, high, high, high};
    }

   private:
    Register values_;
  };

 private:
  using Signed = int16_t __attribute__((vector_size(16)));
  using Wide = int32_t __attribute__((vector_size(32)));
  static Register select(Register mask, Register a, Register b) { return (a & mask) | (b & ~mask); }
};

#endif

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
