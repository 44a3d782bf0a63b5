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
using SignedHalves = int16_t __attribute__((vector_size(4 * kLanes)));
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

// Lane i is the low half of row i - 1 of `before` (of row 15 for row 0), then the high half of row i of `here`.
REQUANT_INLINE inline void join_rows(const Lanes (&before)[kParts], const Lanes (&here)[kParts],
                                     Lanes (&joined)[kParts]) {
#if defined(__AVX512BW__)
  const __m512i places = _mm512_set_epi16(60, 31, 58, 29, 56, 27, 54, 25, 52, 23, 50, 21, 48, 19, 46, 17, 44, 15, 42,
                                          13, 40, 11, 38, 9, 36, 7, 34, 5, 32, 3, 62, 1);
  joined[0] = reinterpret_cast<Lanes>(
      _mm512_permutex2var_epi16(reinterpret_cast<__m512i>(here[0]), places, reinterpret_cast<__m512i>(before[0])));
#else
  uint32_t shifted[1 + 16];
  std::memcpy(shifted + 1, before, 16 * sizeof(uint32_t));
  shifted[0] = shifted[16];
  for (int part = 0; part < kParts; ++part) joined[part] = load_lanes(shifted + part * kLanes) << 16 | here[part] >> 16;
#endif
}

// The four bytes source[index], lane by lane.
template <class Element>
REQUANT_INLINE inline Lanes gather_lanes(const Element* source, Lanes index) {
  static_assert(sizeof(Element) == sizeof(uint32_t));
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(_mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), source, sizeof(Element)));
#elif defined(__AVX2__)
  return reinterpret_cast<Lanes>(
      _mm256_i32gather_epi32(reinterpret_cast<const int*>(source), reinterpret_cast<__m256i>(index), sizeof(Element)));
#else
  Lanes values{};
  for (int lane = 0; lane < kLanes; ++lane) {
    uint32_t bits;
    std::memcpy(&bits, source + index[lane], sizeof bits);
    values[lane] = bits;
  }
  return values;
#endif
}

// Bytes 1 and 2 of every lane, as a number: one instruction instead of a shift and a mask.
REQUANT_INLINE inline Lanes middle_bytes(Lanes a) {
#if defined(__AVX512BW__)
  const __m512i bytes = _mm512_set4_epi32(0x80800e0d, 0x80800a09, 0x80800605, 0x80800201);  // 0x80: zero
  return reinterpret_cast<Lanes>(_mm512_shuffle_epi8(reinterpret_cast<__m512i>(a), bytes));
#elif defined(__AVX2__)
  const __m256i bytes =
      _mm256_setr_epi32(0x80800201, 0x80800605, 0x80800a09, 0x80800e0d, 0x80800201, 0x80800605, 0x80800a09, 0x80800e0d);
  return reinterpret_cast<Lanes>(_mm256_shuffle_epi8(reinterpret_cast<__m256i>(a), bytes));
#else
  return a >> 8 & 0xffff;
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

// `sum` + the four bytes of every lane.
REQUANT_INLINE inline Lanes add_bytes(Lanes a, Lanes sum) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<Lanes>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), _mm512_set1_epi8(1)));
#elif defined(__AVX512BW__)
  const __m512i pairs = _mm512_maddubs_epi16(reinterpret_cast<__m512i>(a), _mm512_set1_epi8(1));
  return reinterpret_cast<Lanes>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))) + sum;
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(a), _mm256_set1_epi8(1));
  return reinterpret_cast<Lanes>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))) + sum;
#else
  const Lanes pairs = (a & 0x00ff00ff) + (a >> 8 & 0x00ff00ff);
  return ((pairs + (pairs >> 16)) & 0xffff) + sum;
#endif
}

// `sum` + low half of a * low half of b + high half of a * high half of b; halves are signed, and sums wrap.
REQUANT_INLINE inline Lanes add_half_products(Lanes a, Lanes b, Lanes sum) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<Lanes>(
      _mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX512BW__)
  return reinterpret_cast<Lanes>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))) + sum;
#elif defined(__AVX2__)
  return reinterpret_cast<Lanes>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b))) + sum;
#else
  const auto low = [](Lanes lanes) {
    return reinterpret_cast<Lanes>(reinterpret_cast<SignedLanes>(lanes << 16) >> 16);
  };
  const auto high = [](Lanes lanes) { return reinterpret_cast<Lanes>(reinterpret_cast<SignedLanes>(lanes) >> 16); };
  return low(a) * low(b) + high(a) * high(b) + sum;
#endif
}

#ifdef __AVX512BF16__
// `sum` + low half of a * low half of b + high half of a * high half of b; halves are bf16.
REQUANT_INLINE inline FloatLanes add_bf16_products(Lanes a, Lanes b, FloatLanes sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
#endif

REQUANT_INLINE inline FloatLanes signed_to_floats(Lanes a) {
  return __builtin_convertvector(reinterpret_cast<SignedLanes>(a), FloatLanes);
}

// Lanes come in groups of four. With rows in this order, transpose_groups turns four columns into four registers of
// neighbouring rows:
//
//   group  0         1         2         3
//   rows   0 4 8 12  1 5 9 13  2 6 10 14  3 7 11 15       16 lanes
//   rows   0 2 4 6   1 3 5 7                              8 lanes
REQUANT_INLINE inline Lanes rows_for_groups(Lanes a) {
  constexpr int kGroups = kLanes / 4;
  SignedLanes places{};
  for (int i = 0; i < kLanes; ++i) places[i] = i % 4 * kGroups + i / 4;
  const FloatLanes floats = reinterpret_cast<FloatLanes>(a);
  return reinterpret_cast<Lanes>(shuffle(floats, floats, places));
}

// In every group of four lanes: lane j of register i becomes lane i of register j.
REQUANT_INLINE inline void transpose_groups(FloatLanes (&a)[4]) {
  SignedLanes low{}, high{}, first_half{}, second_half{};
  for (int i = 0; i < kLanes; ++i) {
    const int group = i / 4 * 4, lane = i % 4;
    low[i] = group + lane / 2 + lane % 2 * kLanes;
    high[i] = low[i] + 2;
    first_half[i] = group + lane % 2 + lane / 2 * kLanes;
    second_half[i] = first_half[i] + 2;
  }
  const FloatLanes low01 = shuffle(a[0], a[1], low), high01 = shuffle(a[0], a[1], high);
  const FloatLanes low23 = shuffle(a[2], a[3], low), high23 = shuffle(a[2], a[3], high);
  a[0] = shuffle(low01, low23, first_half);
  a[1] = shuffle(low01, low23, second_half);
  a[2] = shuffle(high01, high23, first_half);
  a[3] = shuffle(high01, high23, second_half);
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
