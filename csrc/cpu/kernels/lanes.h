// The 16 rows of a tile side by side: kParts registers, as wide as the instruction set has them, in the compiler's
// portable vectors; only what those cannot say is written per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kParts = 16 / kLanes;

using Lanes = uint32_t __attribute__((vector_size(4 * kLanes)));
using SignedLanes = int32_t __attribute__((vector_size(4 * kLanes)));
using FloatLanes = float __attribute__((vector_size(4 * kLanes)));

REQUANT_INLINE inline Lanes load_lanes(const void* source) {
  Lanes result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
REQUANT_INLINE inline Lanes load_words(const uint8_t* source) {
  uint16_t __attribute__((vector_size(2 * kLanes))) words;
  std::memcpy(&words, source, sizeof words);
  return __builtin_convertvector(words, Lanes);
}
REQUANT_INLINE inline FloatLanes load_float_lanes(const float* source) {
  FloatLanes result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
REQUANT_INLINE inline void store_lanes(float* destination, FloatLanes a) { std::memcpy(destination, &a, sizeof a); }
// Subtracting zero changes no number, adding it would change -0: the compiler leaves a broadcast.
REQUANT_INLINE inline FloatLanes splat_lanes(float a) { return a - FloatLanes{}; }
REQUANT_INLINE inline FloatLanes multiply_add(FloatLanes a, FloatLanes b, FloatLanes sum) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, sum);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, sum);
#else
  return a * b + sum;
#endif
}

// Lane i of `here` gets the value of row i - 1; row 0 that of row 15.
REQUANT_INLINE inline void rows_before(const Lanes (&rows)[kParts], Lanes (&before)[kParts]) {
#if defined(__AVX512F__)
  before[0] = reinterpret_cast<Lanes>(
      _mm512_alignr_epi32(reinterpret_cast<__m512i>(rows[0]), reinterpret_cast<__m512i>(rows[0]), 15));
#else
  uint32_t shifted[1 + 16];
  std::memcpy(shifted + 1, rows, 16 * sizeof(uint32_t));
  shifted[0] = shifted[16];
  std::memcpy(before, shifted, 16 * sizeof(uint32_t));
#endif
}

// source[index], lane by lane.
REQUANT_INLINE inline FloatLanes gather_lanes(const float* source, Lanes index) {
#if defined(__AVX512F__)
  return _mm512_i32gather_ps(reinterpret_cast<__m512i>(index), source, sizeof(float));
#elif defined(__AVX2__)
  return _mm256_i32gather_ps(source, reinterpret_cast<__m256i>(index), sizeof(float));
#else
  FloatLanes values{};
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = source[index[lane]];
  return values;
#endif
}

// Lane i is lane places[i] of both registers, the second one's places following the first one's.
REQUANT_INLINE inline FloatLanes shuffle(FloatLanes first, FloatLanes second, SignedLanes places) {
#ifdef __clang__  // has no shuffle by a vector
  FloatLanes result{};
  for (int i = 0; i < kLanes; ++i) result[i] = places[i] < kLanes ? first[places[i]] : second[places[i] - kLanes];
  return result;
#else
  return __builtin_shuffle(first, second, places);
#endif
}

// Lane j of register i becomes lane i of register j.
REQUANT_INLINE inline void transpose(FloatLanes (&a)[kLanes]) {
  SignedLanes lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  unroll<0, kLanes == 16  ? 4
            : kLanes == 8 ? 3
                          : 2>([&](auto bit) REQUANT_INLINE {
    constexpr int kDistance = 1 << bit.value;
    const SignedLanes upper = (lane & kDistance) != 0;  // all ones there
    // Places beyond kLanes are those of the second register.
    const SignedLanes low = lane + (upper & (kLanes - kDistance)), high = low + kDistance;
    unroll<0, kLanes>([&](auto i) REQUANT_INLINE {
      if constexpr ((i.value & kDistance) == 0) {
        const FloatLanes first = a[i.value], second = a[i.value + kDistance];
        a[i.value] = shuffle(first, second, low);
        a[i.value + kDistance] = shuffle(first, second, high);
      }
    });
  });
}

// The sum of the four bytes of every lane, less 510: the middle of its range.
REQUANT_INLINE inline FloatLanes centred_byte_sums(Lanes a) {
#if defined(__AVX512VNNI__)
  const __m512i sums = _mm512_dpbusd_epi32(_mm512_set1_epi32(-510), reinterpret_cast<__m512i>(a), _mm512_set1_epi8(1));
  return _mm512_cvtepi32_ps(sums);
#elif defined(__AVX512BW__)
  const __m512i pairs = _mm512_maddubs_epi16(reinterpret_cast<__m512i>(a), _mm512_set1_epi8(1));
  const __m512i sums = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(510)));
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(a), _mm256_set1_epi8(1));
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(510)));
#else
  const Lanes pairs = (a & 0x00ff00ff) + (a >> 8 & 0x00ff00ff);
  return __builtin_convertvector(reinterpret_cast<SignedLanes>(((pairs + (pairs >> 16)) & 0xffff) - 510), FloatLanes);
#endif
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
