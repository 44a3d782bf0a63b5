// The packed layout of format `trellis` as constants. Python's `requant_kernels/formats/trellis.py` writes it.
//
// A weight is padded to multiples of 16 and cut into tiles of 16 x 16. A tile is a ring of 256 * bits bits, row by row;
// the state of a step is 16 consecutive bits of it. The 16 * bits bits of a row are one number, first bits highest:
//
//             row 0    row 1         row 15  | row 0 ...
//   plane 0  | dword  | dword  | ... | dword | plane 1 ...     the first 32 bits of every row
//   plane 1                                                    3 bits: 16 words, 4 bits: 16 dwords: the bits behind
//
// With one row per lane, *source* k of a row is the dword of ring bits that ends 16 (k + 1) bits into the row,
//
//   row before | bits 0..15 | 16..31 | 32..47 | 48..63
//         source 0 --------|
//              source 1 -----------|
//                       source 2 -----------|
//                                source 3 -----------|
//
// and the state that ends e bits into the row is source (e - 1) / 16 shifted right, its low 16 bits.
// Tiles of 16 rows follow each other, then come the next 16 rows.
#pragma once

#include <cstdint>

namespace requant {

constexpr int kTrellisTile = 16;
constexpr int trellis_tile_bytes(int bits) { return 32 * bits; }
enum class TrellisCode : int { k1mad = 0, k3inst = 1, kHyb = 2 };

// What a weight of format `trellis` has besides codes and scale.
struct Trellis {
  const int8_t* input_signs;   // [in_features]; null: another format
  const int8_t* output_signs;  // [out_features]
  const float* codebook;       // [512, 2] for kHyb
  TrellisCode code;
};

}  // namespace requant
