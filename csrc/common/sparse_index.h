// The sparse index: the CSR part of a weight, reordered at load time so that the 16 rows of a tile are worked on side
// by side, one row per lane, without a padded entry. Inputs are cut into *spans* of 65536, so that an entry has 4
// bytes, as in CSR with 16-bit columns, whatever in_features is.
//
//   uint32 offsets[tiles * spans + 1]     words of (tile, span) are offsets[k] ..< offsets[k + 1], k = tile * spans +
//   span uint32 words[]
//
// The words of a (tile, span) that has entries:
//
//   16 lanes    bit 31                  4 3      0     lanes in falling order of their number of entries
//                   number of entries    |  row
//   entries     bit 31         16 15            0
//                   16-bit value |  input in span
//
// A row's entries are ordered by input. Entries stand in *layers*, then in *tails*:
//
//   layer d     entry d of every lane that has more than d entries: of the first so many lanes, the lanes being sorted
//   ...         as long as at least kFullLanes lanes have one: there are `layer_count` layers, the number of entries of
//               lane kFullLanes - 1
//   tail        the rest of lane 0, then that of lane 1, ...: rows that are much longer than the others
//
//   lane      0 1 2 3 4 ...
//   layer 0   a b c d e          in memory: a b c d e  f g h i  j k  l          (kFullLanes is 3 in this picture)
//   layer 1   f g h i
//   tails     j l
//             k
#pragma once

#include <cstdint>

#include "common/tile16.h"

namespace requant {

struct SparseIndex {
  const uint32_t* offsets;
  const uint32_t* words;
};

constexpr int64_t kSpanInputs = 65536;
constexpr int kFullLanes = 4;
constexpr int kLaneRowBits = 4;
constexpr uint32_t kLaneRowMask = kTileRows - 1;
constexpr uint32_t kEntryInputMask = 0xffff;
constexpr int kEntryValueShift = 16;

inline int64_t span_count(int64_t in_features) { return (in_features + kSpanInputs - 1) / kSpanInputs; }

}  // namespace requant
