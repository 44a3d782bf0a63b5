// The sparse index: the CSR part of a weight, reordered at load time so that a kernel meets each entry while it works
// on the dense codes of the same 16 rows and the same 256 inputs (a *stretch*).
//
//   uint32 offsets[tiles * stretches + 1]     entries of (tile, stretch) are offsets[k] ..< offsets[k + 1],
//                                             k = tile * stretches + stretch
//   uint32 entries[nnz]                       bit 31          16 15    12 11              0
//                                                 16-bit value  |  row   | input in stretch
//
// An entry has 4 bytes, as in CSR with 16-bit columns, whatever in_features is. Within a (tile, stretch) entries are
// ordered by input, then row. Offsets cost 4 bytes per 4096 weights.
#pragma once

#include <cstdint>

#include "common/tile16.h"

namespace requant {

constexpr int kStretchInputs = 256;

struct SparseIndex {
  const uint32_t* offsets;
  const uint32_t* entries;
};

constexpr int kEntryInputBits = 12;
constexpr uint32_t kEntryInputMask = (1u << kEntryInputBits) - 1;
constexpr uint32_t kEntryRowMask = kTileRows - 1;
constexpr int kEntryValueShift = 16;

}  // namespace requant
