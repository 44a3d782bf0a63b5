// Instruction set `avx2`: AVX2 with FMA and F16C. One register is two rows. The vocabulary is explained in scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/sparse_index.h"
#include "common/tile16.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

struct Isa {
  static constexpr int kRows = 2;
  static constexpr int kSlices = kTileRows / kRows;
  static constexpr int kUnrolledSlices = 1;
  static constexpr bool kHasBf16Products = false;
  static constexpr int kDecodedSlices = 1;
  static constexpr int kPanelSlices = 2;
  static constexpr int kPanelTokens = 5;

  using Words = __m256i;
  using Floats = __m256;
  using Integers = __m256i;

  static Words load(const uint8_t* units) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(units)); }
  static Words load_bytes(const uint8_t* bytes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }
  static Words splat_words(int word) { return _mm256_set1_epi16(static_cast<int16_t>(word)); }
  template <int kBits>
  static Words shift_right(Words a) {
    if constexpr (kBits > 0) return _mm256_srli_epi16(a, kBits);
    if constexpr (kBits < 0) return _mm256_slli_epi16(a, -kBits);
    return a;
  }
  static Words bit_and(Words a, Words b) { return _mm256_and_si256(a, b); }
  static Words select(Words mask, Words a, Words b) {
    return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
  }
  static Words and_or(Words a, Words mask, Words b) { return _mm256_or_si256(_mm256_and_si256(a, mask), b); }
  static Words lookup_bytes(Words table, Words index) { return _mm256_shuffle_epi8(table, index); }
  static Words repeat_bytes(const int8_t* sixteen) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }

  static Integers zero_integers() { return _mm256_setzero_si256(); }
  static Integers add(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
  static Integers times_256(Integers a) { return _mm256_slli_epi32(a, 8); }
  static Floats to_floats(const int32_t* integers) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(integers)));
  }
  template <bool kBelow128>
  static Integers add_byte_products(Integers sum, Words unsigned_bytes, Words signed_bytes) {
    if constexpr (kBelow128) {  // two products of at most 127 * 127 fit 16 bits
      const Words pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
      return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    const Words even = _mm256_madd_epi16(_mm256_and_si256(unsigned_bytes, _mm256_set1_epi16(0x00ff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(signed_bytes, 8), 8));
    const Words odd = _mm256_madd_epi16(_mm256_srli_epi16(unsigned_bytes, 8), _mm256_srai_epi16(signed_bytes, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
  }

  static void transpose_dwords(Words (&a)[4]) {
    const Words low01 = _mm256_unpacklo_epi32(a[0], a[1]), high01 = _mm256_unpackhi_epi32(a[0], a[1]);
    const Words low23 = _mm256_unpacklo_epi32(a[2], a[3]), high23 = _mm256_unpackhi_epi32(a[2], a[3]);
    a[0] = _mm256_unpacklo_epi64(low01, low23);
    a[1] = _mm256_unpackhi_epi64(low01, low23);
    a[2] = _mm256_unpacklo_epi64(high01, high23);
    a[3] = _mm256_unpackhi_epi64(high01, high23);
  }
  static Floats load_lanes(const float* rows) {
    return _mm256_permutevar8x32_ps(load(rows), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  }
  static void store_lanes(Floats lanes, float* rows) {
    store(rows, _mm256_permutevar8x32_ps(lanes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }

  static Floats even_integers(Words a) { return _mm256_cvtepi32_ps(_mm256_and_si256(a, _mm256_set1_epi32(0xffff))); }
  static Floats odd_integers(Words a) { return _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 16)); }
  static Floats even_floats(Words high) { return _mm256_castsi256_ps(_mm256_slli_epi32(high, 16)); }
  static Floats odd_floats(Words high) {
    return _mm256_castsi256_ps(_mm256_and_si256(high, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
  }
  static Floats even_floats(Words high, Words low) {
    return _mm256_castsi256_ps(_mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa));
  }
  static Floats odd_floats(Words high, Words low) {
    return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xaa));
  }
  static Words join_bf16(Floats even, Floats odd) {
    return _mm256_blend_epi16(_mm256_srli_epi32(_mm256_castps_si256(even), 16), _mm256_castps_si256(odd), 0xaa);
  }

  static Floats splat(float value) { return _mm256_set1_ps(value); }
  static Floats splat_rows(const float* rows) {
    return _mm256_set_m128(_mm_broadcast_ss(rows + 1), _mm_broadcast_ss(rows));
  }
  static Floats repeat(const float* four) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(four)); }
  static Floats load(const float* a) { return _mm256_loadu_ps(a); }
  static void store(float* destination, Floats a) { _mm256_storeu_ps(destination, a); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }

  static void sum_rows(const Floats* slices, float* rows) {
    for (int i = 0; i < kSlices; i += 4) {  // eight rows: lane h of slice i + s is row 2 * s + h
      const Floats low = _mm256_hadd_ps(slices[i], slices[i + 1]);
      const Floats high = _mm256_hadd_ps(slices[i + 2], slices[i + 3]);
      const Floats sums = _mm256_hadd_ps(low, high);  // rows 0 2 4 6 | 1 3 5 7
      store_lanes(sums, rows + 2 * i);
    }
  }
  static void sum_rows(const Integers* slices, int32_t* rows) {
    for (int i = 0; i < kSlices; i += 4) {  // as above
      const Integers low = _mm256_hadd_epi32(slices[i], slices[i + 1]);
      const Integers high = _mm256_hadd_epi32(slices[i + 2], slices[i + 3]);
      const Integers sums = _mm256_hadd_epi32(low, high);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + 2 * i),
                          _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
  }
  static void store_rows(Floats even, Floats odd, float* rows, int64_t stride) {
    const Floats first = _mm256_unpacklo_ps(even, odd), second = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(rows, _mm256_permute2f128_ps(first, second, 0x20));
    _mm256_storeu_ps(rows + stride, _mm256_permute2f128_ps(first, second, 0x31));
  }

  static Words round_to_bf16(Floats even, Floats odd) {
    return _mm256_blend_epi16(_mm256_srli_epi32(round_bits(even), 16), round_bits(odd), 0xaa);
  }
  static void store_rows(const Words* steps, uint16_t* rows, int64_t stride) {
    for (int i = 0; i < 4; i += 2) {
      auto* place = reinterpret_cast<__m256i*>(rows + i * 8);
      auto* next_row = reinterpret_cast<__m256i*>(rows + i * 8 + stride);
      _mm256_storeu_si256(place, _mm256_permute2x128_si256(steps[i], steps[i + 1], 0x20));
      _mm256_storeu_si256(next_row, _mm256_permute2x128_si256(steps[i], steps[i + 1], 0x31));
    }
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
    for (int i = 0; i < kTileRows; i += 8) {
      const Entries unpacked(entries + i, count - i, bf16);
      _mm256_store_ps(values + i, unpacked.values);
      const __m256i absent = _mm256_xor_si256(unpacked.present, _mm256_set1_epi32(-1));
      _mm256_store_si256(reinterpret_cast<__m256i*>(inputs + i), _mm256_or_si256(unpacked.inputs, absent));
    }
  }
  static void add_products(const uint32_t* entries, int count, bool bf16, const float* x, float* sums) {
    for (int i = 0; i < count; i += 8) {
      const Entries unpacked(entries + i, count - i, bf16);
      const __m256 gathered = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, unpacked.inputs,
                                                       _mm256_castsi256_ps(unpacked.present), sizeof(float));
      _mm256_storeu_ps(sums + i, _mm256_fmadd_ps(unpacked.values, gathered, _mm256_loadu_ps(sums + i)));
    }
  }

  // In assembly, because GCC 12 drops calls of functions that only prefetch.
  static void prefetch(const void* address) { asm volatile("prefetcht0 (%0)" : : "r"(address)); }

 private:
  // The first `count` of 8 entries of the sparse index; the rest is zero.
  struct Entries {
    Entries(const uint32_t* entries, int count, bool bf16)
        : present(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {
      const __m256i entry = _mm256_maskload_epi32(reinterpret_cast<const int*>(entries), present);
      inputs = _mm256_and_si256(entry, _mm256_set1_epi32(0xffff));
      values = bf16 ? _mm256_castsi256_ps(_mm256_sub_epi32(entry, inputs)) : upper_halves_to_floats(entry);
    }
    __m256i present;
    __m256i inputs;
    __m256 values;
  };
  static __m256 upper_halves_to_floats(__m256i a) {
    const __m256i high = _mm256_srli_epi32(a, 16);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
  }
  static Words round_bits(Floats a) {
    const Words bits = _mm256_castps_si256(a);
    const Words last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), last));
  }
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
