// Instruction set `scalar`: no instruction named, any little-endian processor. One register is one row of a tile.
//
// Every instruction set offers the same small vocabulary. A register holds kRows consecutive rows of a tile (a
// *slice*):
//
//   Words    one unit per row: eight 16-bit words
//   Floats   four floats per row; the *even* Floats of a step belong to words 0, 2, 4, 6, the *odd* ones to 1, 3, 5, 7
//   Integers four int32 per row
#pragma once

#include <cstdint>
#include <cstring>

#include "common/sparse_index.h"
#include "common/tile16.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

struct Isa {
  static constexpr int kRows = 1;
  static constexpr int kSlices = kTileRows / kRows;
  static constexpr int kUnrolledSlices = 1;  // of the decode kernel: as many as the register file can work on
  static constexpr bool kHasBf16Products = false;
  static constexpr int kDecodedSlices = 1;  // together, of the decode kernel
  // Sums that fit the register file where a register has kRows rows, as of panels: slices x tokens.
  static constexpr int kPanelSlices = 2;
  static constexpr int kPanelTokens = 4;

  // The compiler's portable vectors of 16 bytes: one or two instructions on any processor.
  using Words = uint16_t __attribute__((vector_size(16)));
  using Floats = float __attribute__((vector_size(16)));
  using Dwords = uint32_t __attribute__((vector_size(16)));
  using Integers = int32_t __attribute__((vector_size(16)));

  static float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }

  static Words load(const uint8_t* units) {
    Words result;
    std::memcpy(&result, units, sizeof result);
    return result;
  }
  // Eight bytes per row, each widened to a word.
  static Words load_bytes(const uint8_t* bytes) {
    return Words{bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]};
  }
  static Words splat_words(int word) { return Words{} + static_cast<uint16_t>(word); }
  // Every word shifted right by kBits, or left by -kBits.
  template <int kBits>
  static Words shift_right(Words a) {
    if constexpr (kBits >= 0) return a >> kBits;
    return a << (-kBits & 15);
  }
  static Words bit_and(Words a, Words b) { return a & b; }
  // (a & mask) | (b & ~mask)
  static Words select(Words mask, Words a, Words b) { return (a & mask) | (b & ~mask); }
  // (a & mask) | b
  static Words and_or(Words a, Words mask, Words b) { return (a & mask) | b; }
  // For each byte of `index` (below 16): that entry of the row's table of 16 bytes.
  [[gnu::noinline]] static Words lookup_bytes(Words table, Words index) {
    uint8_t entries[16], indices[16], found[16];
    std::memcpy(entries, &table, sizeof entries);
    std::memcpy(indices, &index, sizeof indices);
    for (int i = 0; i < 16; ++i) found[i] = entries[indices[i]];
    return load(found);
  }

  // The same sixteen bytes for every row.
  static Words repeat_bytes(const int8_t* sixteen) { return load(reinterpret_cast<const uint8_t*>(sixteen)); }

  static Integers zero_integers() { return Integers{}; }
  static Integers add(Integers a, Integers b) { return a + b; }
  static Integers times_256(Integers a) { return a * 256; }
  static Floats to_floats(const int32_t* integers) {
    return Floats{static_cast<float>(integers[0]), static_cast<float>(integers[1]), static_cast<float>(integers[2]),
                  static_cast<float>(integers[3])};
  }
  // Adds the products of four unsigned and four signed bytes to each integer. The unsigned ones are below 128 if
  // kBelow128, none of the signed ones is -128.
  template <bool kBelow128>
  static Integers add_byte_products(Integers sum, Words unsigned_bytes, Words signed_bytes) {
    uint8_t a[16];
    int8_t b[16];
    std::memcpy(a, &unsigned_bytes, sizeof a);
    std::memcpy(b, &signed_bytes, sizeof b);
    for (int i = 0; i < 16; ++i) sum[i / 4] += a[i] * b[i];
    return sum;
  }

  // Four slices to four pairs (kernels/row_lanes.h): lane 4 r + s of register w is dword w of row r of slice s.
  static void transpose_dwords(Words (&a)[4]) {
    uint32_t dwords[4][4], transposed[4][4];
    std::memcpy(dwords, a, sizeof dwords);
    for (int s = 0; s < 4; ++s) {
      for (int w = 0; w < 4; ++w) transposed[w][s] = dwords[s][w];
    }
    std::memcpy(a, transposed, sizeof transposed);
  }
  // From and to 4 * kRows consecutive rows, in the order of those lanes.
  static Floats load_lanes(const float* rows) { return load(rows); }
  static void store_lanes(Floats lanes, float* rows) { store(rows, lanes); }

  // Words as unsigned integers.
  static Floats even_integers(Words a) { return __builtin_convertvector(as_dwords(a) & 0xffff, Floats); }
  static Floats odd_integers(Words a) { return __builtin_convertvector(as_dwords(a) >> 16, Floats); }
  // Words as the upper halves of floats, which is bf16.
  static Floats even_floats(Words high) { return as_floats(as_dwords(high) << 16); }
  static Floats odd_floats(Words high) { return as_floats(as_dwords(high) & 0xffff0000); }
  // Words as the upper and lower halves of floats.
  static Floats even_floats(Words high, Words low) {
    return as_floats(as_dwords(high) << 16 | (as_dwords(low) & 0xffff));
  }
  static Floats odd_floats(Words high, Words low) {
    return as_floats((as_dwords(high) & 0xffff0000) | as_dwords(low) >> 16);
  }

  static Floats splat(float value) { return Floats{value, value, value, value}; }
  // rows[i] in every place of row i.
  static Floats splat_rows(const float* rows) { return splat(rows[0]); }
  // The same four floats for every row.
  static Floats repeat(const float* four) { return load(four); }
  static Floats load(const float* a) { return Floats{a[0], a[1], a[2], a[3]}; }
  static void store(float* destination, Floats a) { std::memcpy(destination, &a, sizeof a); }
  static Floats add(Floats a, Floats b) { return a + b; }
  static Floats subtract(Floats a, Floats b) { return a - b; }
  static Floats multiply(Floats a, Floats b) { return a * b; }
  static Floats multiply_add(Floats a, Floats b, Floats sum) { return a * b + sum; }

  // rows[i] = the sum of the four floats of row i of the tile.
  static void sum_rows(const Floats* slices, float* rows) {
    for (int row = 0; row < kTileRows; ++row) {
      rows[row] = (slices[row][0] + slices[row][1]) + (slices[row][2] + slices[row][3]);
    }
  }
  static void sum_rows(const Integers* slices, int32_t* rows) {
    for (int row = 0; row < kTileRows; ++row) {
      rows[row] = (slices[row][0] + slices[row][1]) + (slices[row][2] + slices[row][3]);
    }
  }
  // The eight floats of each row, in order, at rows + row * stride.
  static void store_rows(Floats even, Floats odd, float* rows, int64_t) {
    for (int i = 0; i < 4; ++i) {
      rows[2 * i] = even[i];
      rows[2 * i + 1] = odd[i];
    }
  }

  // A step rounded to bf16, to nearest even; the values are finite.
  static Words round_to_bf16(Floats even, Floats odd) {
    return reinterpret_cast<Words>(round_bits(even) >> 16 | (round_bits(odd) & 0xffff0000));
  }
  // Four consecutive steps: the 32 words of each row, in order, at rows + row * stride.
  static void store_rows(const Words* steps, uint16_t* rows, int64_t) { std::memcpy(rows, steps, 4 * sizeof(Words)); }

  static float half_to_float(uint16_t half) {
    const float magnitude = as_float(static_cast<uint32_t>(half & 0x7fff) << 13) * 0x1p112f;
    const uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
    return as_float(as_bits(magnitude) | special | static_cast<uint32_t>(half & 0x8000) << 16);
  }
  // Eight values, as the processor converts them: round to nearest even, NaN and infinity kept.
  static void halves_to_floats(const uint16_t* halves, float* floats) {
    for (int i = 0; i < 8; ++i) floats[i] = half_to_float(halves[i]);
  }
  static void floats_to_halves(const float* floats, uint16_t* halves) {
    for (int i = 0; i < 8; ++i) halves[i] = float_to_half(floats[i]);
  }
  static uint16_t float_to_half(float value) {
    const uint32_t bits = as_bits(value);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 65536 or beyond
    if (magnitude < 0x38800000) {  // subnormal in fp16: adding 0.5 aligns the last fp16 bit with the last fp32 bit
      return static_cast<uint16_t>(sign | (as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f)));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
  }

  // The values and inputs of the first `count` of 16 entries of the sparse index (common/sparse_index.h), 0 and -1 for
  // the rest.
  static void unpack_entries(const uint32_t* entries, int count, bool bf16, float* values, int32_t* inputs) {
    for (int i = 0; i < count; ++i) {
      values[i] = entry_value(entries[i], bf16);
      inputs[i] = static_cast<int32_t>(entries[i] & 0xffff);
    }
    for (int i = count; i < kTileRows; ++i) {
      values[i] = 0;
      inputs[i] = -1;
    }
  }
  // sums[i] += value * x[input] of the first `count` of 16 entries.
  static void add_products(const uint32_t* entries, int count, bool bf16, const float* x, float* sums) {
    for (int i = 0; i < count; ++i) sums[i] += entry_value(entries[i], bf16) * x[entries[i] & 0xffff];
  }

  static void prefetch(const void* address) { __builtin_prefetch(address); }

 private:
  static float entry_value(uint32_t entry, bool bf16) {
    return bf16 ? as_float(entry & 0xffff0000) : half_to_float(static_cast<uint16_t>(entry >> 16));
  }
  static Dwords as_dwords(Words a) { return reinterpret_cast<Dwords>(a); }
  static Floats as_floats(Dwords a) { return reinterpret_cast<Floats>(a); }
  // The upper 16 bits of each float are the rounded value.
  static Dwords round_bits(Floats a) {
    const Dwords bits = reinterpret_cast<Dwords>(a);
    return bits + 0x7fff + (bits >> 16 & 1);
  }
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
