// Instruction set `avx512`: AVX-512 F, BW, VL, DQ. One register is four rows. The vocabulary is explained in scalar.h.
//
// The translation units of avx512bf16 include this file too and add `vdpbf16ps`, which makes kHasBf16Products true,
// `vpdpbusd`, and permutations of bytes.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/sparse_index.h"
#include "common/tile16.h"
#ifdef __AMX_BF16__
#include "isa/amx.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

struct Isa {
  static constexpr int kRows = 4;
  static constexpr int kSlices = kTileRows / kRows;
  static constexpr int kUnrolledSlices = 4;
  static constexpr int kDecodedSlices = 4;
  static constexpr int kPanelSlices = 4;
  static constexpr int kPanelTokens = 6;

  using Words = __m512i;
  using Floats = __m512;
  using Integers = int32_t __attribute__((vector_size(64)));  // as __m512i they would cost GCC 12 a move per product

#ifdef __AVX512BF16__
  static constexpr bool kHasBf16Products = true;
  // The same eight words for every row.
  static Words repeat(const uint16_t* eight) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(eight)));
  }
  // Adds the products of eight bf16 weights per row with eight inputs.
  static Floats multiply_add_bf16(Words weights, Words inputs, Floats sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(inputs));
  }
#else
  static constexpr bool kHasBf16Products = false;
#endif

  static Words load(const uint8_t* units) { return _mm512_loadu_si512(units); }
  static Words load_bytes(const uint8_t* bytes) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  }
  static Words splat_words(int word) { return _mm512_set1_epi16(static_cast<int16_t>(word)); }
  template <int kBits>
  static Words shift_right(Words a) {
    if constexpr (kBits > 0) return _mm512_srli_epi16(a, kBits);
    if constexpr (kBits < 0) return _mm512_slli_epi16(a, -kBits);
    return a;
  }
  static Words bit_and(Words a, Words b) { return _mm512_and_si512(a, b); }
  static Words select(Words mask, Words a, Words b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }
  static Words and_or(Words a, Words mask, Words b) { return _mm512_ternarylogic_epi32(a, mask, b, 0xea); }
  static Words lookup_bytes(Words table, Words index) { return _mm512_shuffle_epi8(table, index); }
  // Of a table of 32 or 64 words.
  template <int kTableWords>
  static Words lookup_words(const uint16_t* table, Words index) {
    const Words first = _mm512_loadu_si512(table);
    if constexpr (kTableWords <= 32) return _mm512_permutexvar_epi16(index, first);
    return _mm512_permutex2var_epi16(first, index, _mm512_loadu_si512(table + 32));
  }
  // Times `factor`, in all words of each row.
  static Words row_numbers(int factor) {
    const __m512i rows = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_mullo_epi16(_mm512_shuffle_epi8(rows, _mm512_set1_epi16(0x0100)), splat_words(factor));
  }
  static Words repeat_bytes(const int8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }

  static Integers zero_integers() { return Integers{}; }
  static Integers add(Integers a, Integers b) { return a + b; }
  static Integers times_256(Integers a) { return as_integers(_mm512_slli_epi32(as_words(a), 8)); }
  static Floats to_floats(const int32_t* integers) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(integers)); }
  template <bool kBelow128>
  static Integers add_byte_products(Integers sum, Words unsigned_bytes, Words signed_bytes) {
#ifdef __AVX512VNNI__
    return as_integers(_mm512_dpbusd_epi32(as_words(sum), unsigned_bytes, signed_bytes));
#else
    if constexpr (kBelow128) {  // two products of at most 127 * 127 fit 16 bits
      const Words pairs = _mm512_maddubs_epi16(unsigned_bytes, signed_bytes);
      return sum + as_integers(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    const Words even = _mm512_madd_epi16(_mm512_and_si512(unsigned_bytes, _mm512_set1_epi16(0x00ff)),
                                         _mm512_srai_epi16(_mm512_slli_epi16(signed_bytes, 8), 8));
    const Words odd = _mm512_madd_epi16(_mm512_srli_epi16(unsigned_bytes, 8), _mm512_srai_epi16(signed_bytes, 8));
    return sum + as_integers(even) + as_integers(odd);
#endif
  }

  static void transpose_dwords(Words (&a)[4]) {
    const Words low01 = _mm512_unpacklo_epi32(a[0], a[1]), high01 = _mm512_unpackhi_epi32(a[0], a[1]);
    const Words low23 = _mm512_unpacklo_epi32(a[2], a[3]), high23 = _mm512_unpackhi_epi32(a[2], a[3]);
    a[0] = _mm512_unpacklo_epi64(low01, low23);
    a[1] = _mm512_unpackhi_epi64(low01, low23);
    a[2] = _mm512_unpacklo_epi64(high01, high23);
    a[3] = _mm512_unpackhi_epi64(high01, high23);
  }
  static Floats load_lanes(const float* rows) { return swap_lanes(load(rows)); }
  static void store_lanes(Floats lanes, float* rows) { store(rows, swap_lanes(lanes)); }

  static Floats even_integers(Words a) { return _mm512_cvtepi32_ps(_mm512_and_si512(a, _mm512_set1_epi32(0xffff))); }
  static Floats odd_integers(Words a) { return _mm512_cvtepi32_ps(_mm512_srli_epi32(a, 16)); }
  static Floats even_floats(Words high) { return _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)); }
  static Floats odd_floats(Words high) { return _mm512_castsi512_ps(_mm512_and_si512(high, upper_halves())); }
  static Floats even_floats(Words high, Words low) {
    return _mm512_castsi512_ps(select(upper_halves(), _mm512_slli_epi32(high, 16), low));
  }
  static Floats odd_floats(Words high, Words low) {
    return _mm512_castsi512_ps(select(upper_halves(), high, _mm512_srli_epi32(low, 16)));
  }
  static Words join_bf16(Floats even, Floats odd) {
    return select(upper_halves(), _mm512_castps_si512(odd), _mm512_srli_epi32(_mm512_castps_si512(even), 16));
  }

  static Floats splat(float value) { return _mm512_set1_ps(value); }
  static Floats splat_rows(const float* rows) {
    const __m512i row_of_place = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutevar_ps(repeat(rows), row_of_place);
  }
  static Floats repeat(const float* four) { return _mm512_broadcast_f32x4(_mm_loadu_ps(four)); }
  static Floats load(const float* a) { return _mm512_loadu_ps(a); }
  static void store(float* destination, Floats a) { _mm512_storeu_ps(destination, a); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }

  static void sum_rows(const Floats* slices, float* rows) {
    const Floats low = add_neighbours(slices[0], slices[1]), high = add_neighbours(slices[2], slices[3]);
    const Floats sums = add(as_floats(_mm512_unpacklo_epi64(as_words(low), as_words(high))),
                            as_floats(_mm512_unpackhi_epi64(as_words(low), as_words(high))));
    store_lanes(sums, rows);
  }
  static void sum_rows(const Integers* slices, int32_t* rows) {
    const Integers low = add_neighbours(slices[0], slices[1]), high = add_neighbours(slices[2], slices[3]);
    const Integers sums = as_integers(_mm512_unpacklo_epi64(as_words(low), as_words(high))) +
                          as_integers(_mm512_unpackhi_epi64(as_words(low), as_words(high)));
    _mm512_storeu_si512(rows, _mm512_permutexvar_epi32(swapped_lanes(), as_words(sums)));
  }
  static void store_rows(Floats even, Floats odd, float* rows, int64_t stride) {
    const Floats first = _mm512_unpacklo_ps(even, odd), second = _mm512_unpackhi_ps(even, odd);
    // Lane r of `first` and of `second` are the two halves of row r.
    const Floats rows01 = _mm512_shuffle_f32x4(first, second, 0x44), rows23 = _mm512_shuffle_f32x4(first, second, 0xee);
    const __m512i halves_together = _mm512_setr_epi64(0, 1, 4, 5, 2, 3, 6, 7);
    store_two_rows(_mm512_permutexvar_epi64(halves_together, as_words(rows01)), rows, stride);
    store_two_rows(_mm512_permutexvar_epi64(halves_together, as_words(rows23)), rows + 2 * stride, stride);
  }

#ifdef __AVX512BF16__
  static Words round_to_bf16(Floats even, Floats odd) {
    // The conversion puts the even values into the lower half and the odd ones into the upper half.
    const __m512i place = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(place, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
  }
#else
  static Words round_to_bf16(Floats even, Floats odd) {
    return select(upper_halves(), round_bits(odd), _mm512_srli_epi32(round_bits(even), 16));
  }
#endif
  static void store_rows(const Words* steps, uint16_t* rows, int64_t stride) {
    // Lanes are rows: a transposition of four registers by four lanes.
    const Words rows01_first = _mm512_shuffle_i32x4(steps[0], steps[1], 0x44);
    const Words rows23_first = _mm512_shuffle_i32x4(steps[0], steps[1], 0xee);
    const Words rows01_last = _mm512_shuffle_i32x4(steps[2], steps[3], 0x44);
    const Words rows23_last = _mm512_shuffle_i32x4(steps[2], steps[3], 0xee);
    _mm512_storeu_si512(rows, _mm512_shuffle_i32x4(rows01_first, rows01_last, 0x88));
    _mm512_storeu_si512(rows + stride, _mm512_shuffle_i32x4(rows01_first, rows01_last, 0xdd));
    _mm512_storeu_si512(rows + 2 * stride, _mm512_shuffle_i32x4(rows23_first, rows23_last, 0x88));
    _mm512_storeu_si512(rows + 3 * stride, _mm512_shuffle_i32x4(rows23_first, rows23_last, 0xdd));
  }

  static float half_to_float(uint16_t half) { return _cvtsh_ss(half); }
  static void halves_to_floats(const uint16_t* halves, float* floats) {
    _mm256_storeu_ps(floats, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves))));
  }
  static void floats_to_halves(const float* floats, uint16_t* halves) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves),
                     _mm256_cvtps_ph(_mm256_loadu_ps(floats), _MM_FROUND_TO_NEAREST_INT));
  }

  static void unpack_entries(const uint32_t* entries, int count, bool bf16, float* values, int32_t* inputs) {
    const Entries unpacked(entries, count, bf16);
    _mm512_store_ps(values, unpacked.values);
    _mm512_store_si512(inputs, _mm512_mask_mov_epi32(_mm512_set1_epi32(-1), unpacked.present, unpacked.inputs));
  }
  static void add_products(const uint32_t* entries, int count, bool bf16, const float* x, float* sums) {
    const Entries unpacked(entries, count, bf16);
    const __m512 gathered =
        _mm512_mask_i32gather_ps(_mm512_setzero_ps(), unpacked.present, unpacked.inputs, x, sizeof(float));
    _mm512_storeu_ps(sums, _mm512_fmadd_ps(unpacked.values, gathered, _mm512_loadu_ps(sums)));
  }

  // The same for bf16 inputs, a pair of which is loaded for each of them.
  static void add_products(const uint32_t* entries, int count, bool bf16, const uint16_t* x, float* sums) {
    const Entries unpacked(entries, count, bf16);
    const __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), unpacked.present,
                                                      _mm512_srli_epi32(unpacked.inputs, 1), x, 4);
    // An even input is the lower half of its pair: 16 if bit 0 of its number is not set.
    const __m512i shift = _mm512_andnot_si512(_mm512_slli_epi32(unpacked.inputs, 4), _mm512_set1_epi32(16));
    const __m512 gathered = _mm512_castsi512_ps(_mm512_and_si512(_mm512_sllv_epi32(pairs, shift), upper_halves()));
    _mm512_storeu_ps(sums, _mm512_fmadd_ps(unpacked.values, gathered, _mm512_loadu_ps(sums)));
  }

  // In assembly, because GCC 12 drops calls of functions that only prefetch.
  static void prefetch(const void* address) { asm volatile("prefetcht0 (%0)" : : "r"(address)); }

 private:
  // The first `count` of 16 entries of the sparse index; the rest is zero.
  struct Entries {
    Entries(const uint32_t* entries, int count, bool bf16) : present(static_cast<__mmask16>((1u << count) - 1)) {
      const __m512i entry = _mm512_maskz_loadu_epi32(present, entries);
      inputs = _mm512_and_si512(entry, _mm512_set1_epi32(0xffff));
      values = bf16 ? _mm512_castsi512_ps(_mm512_xor_si512(entry, inputs))
                    : _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(entry, 16)));
    }
    __mmask16 present;
    __m512i inputs;
    __m512 values;
  };
  // Place 4 * r + s from and to place 4 * s + r.
  static Words swapped_lanes() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }
  static Floats swap_lanes(Floats a) { return _mm512_permutexvar_ps(swapped_lanes(), a); }
  static Words upper_halves() { return _mm512_set1_epi32(static_cast<int>(0xffff0000)); }
  static Words as_words(Floats a) { return _mm512_castps_si512(a); }
  static Words as_words(Integers a) { return reinterpret_cast<Words>(a); }
  static Integers as_integers(Words a) { return reinterpret_cast<Integers>(a); }
  static Floats as_floats(Words a) { return _mm512_castsi512_ps(a); }
#ifndef __AVX512BF16__
  static Words round_bits(Floats a) {
    const Words bits = as_words(a), last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), last));
  }
#endif
  // Of sums whose place 4 * r + s holds row r of slice s; rows are wanted in the order 4 * s + r.
  // In each lane: a0 + a2, b0 + b2, a1 + a3, b1 + b3.
  static Floats add_neighbours(Floats a, Floats b) { return add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
  static Integers add_neighbours(Integers a, Integers b) {
    return as_integers(_mm512_unpacklo_epi32(as_words(a), as_words(b))) +
           as_integers(_mm512_unpackhi_epi32(as_words(a), as_words(b)));
  }
  static void store_two_rows(__m512i two_rows, float* rows, int64_t stride) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows), _mm512_castsi512_si256(two_rows));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + stride), _mm512_extracti64x4_epi64(two_rows, 1));
  }
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
