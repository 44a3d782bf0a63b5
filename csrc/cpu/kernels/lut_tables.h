// The tables of the 16 rows of a tile, as fp32 entries of which the kEntryBytes upper bytes are kept: a bf16 table
// needs two.
#pragma once

#include "arguments.h"
#include "common/tile16.h"
#include "kernels/conversion.h"
#include "kernels/products.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Words found for the indices in the low and in the high byte of every word.
struct TwoSteps {
  Words first, second;
};

// Cut into bytes, each with a table of its own of 16 bytes per row, for a shuffle of bytes.
template <int kBits, int kEntryBytes>
class LutTables {
  static constexpr int kEntries = 1 << kBits;

 public:
  static constexpr bool kMasksIndices = false;  // bits above an index must be zero

  // Unused places are never looked up.
  void load(const Weight& weight, int64_t table_row, int row) {
    float entries[kEntries];
    load_floats(weight.table, weight.table_dtype, table_row * kEntries, kEntries, entries);
    uint32_t bits[kEntries];
    std::memcpy(bits, entries, sizeof bits);
    for (int byte = 0; byte < kEntryBytes; ++byte) {
      const int shift = 8 * (byte + 4 - kEntryBytes);
      for (int i = 0; i < kEntries; ++i) bytes_[byte][row][i] = static_cast<uint8_t>(bits[i] >> shift);
    }
  }
  void repeat_first_row() {
    for (auto& rows : bytes_) {
      for (int row = 1; row < kTileRows; ++row) std::memcpy(rows[row], rows[0], sizeof rows[row]);
    }
  }

  // The words made of bytes `byte` and `byte + 1` of the entries.
  REQUANT_INLINE TwoSteps look_up(Words index, int slice, int byte) const {
    const Words low = Isa::lookup_bytes(Isa::load(bytes_[byte][slice * Isa::kRows]), index);
    const Words high = Isa::lookup_bytes(Isa::load(bytes_[byte + 1][slice * Isa::kRows]), index);
    const Words low_bytes = Isa::splat_words(0x00ff);
    return {Isa::select(low_bytes, low, Isa::template shift_right<-8>(high)),
            Isa::select(low_bytes, Isa::template shift_right<8>(low), high)};
  }

 private:
  alignas(64) uint8_t bytes_[kEntryBytes][kTileRows][16] = {};
};

#ifdef __AVX512BW__
// One table of words for all rows of a slice, entry i of row r being word r * kEntries + i.
template <int kBits>
class LutTables<kBits, 2> {
  static constexpr int kEntries = 1 << kBits, kSliceWords = Isa::kRows * kEntries;

 public:
  static constexpr bool kMasksIndices = true;

  void load(const Weight& weight, int64_t table_row, int row) {
    const uint16_t* table = static_cast<const uint16_t*>(weight.table);
    std::memcpy(words_ + row * kEntries, table + table_row * kEntries, kEntries * sizeof *table);
  }
  void repeat_first_row() {
    for (int row = 1; row < kTileRows; ++row) std::memcpy(words_ + row * kEntries, words_, kEntries * sizeof *words_);
  }

  REQUANT_INLINE TwoSteps look_up(Words index, int slice, int) const {
    const uint16_t* table = words_ + slice * kSliceWords;
    return {Isa::lookup_words<kSliceWords>(table, in_table(index)),
            Isa::lookup_words<kSliceWords>(table, in_table(Isa::shift_right<8>(index)))};
  }

 private:
  REQUANT_INLINE static Words in_table(Words index) {
    return Isa::and_or(index, Isa::splat_words(kEntries - 1), Isa::row_numbers(kEntries));
  }

  alignas(64) uint16_t words_[kTileRows * kEntries + 32];  // the last table is loaded as one of 32 words
};
#endif

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
