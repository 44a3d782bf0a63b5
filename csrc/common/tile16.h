// The packed layout `tile16` as constants. Python's `requant_kernels/formats/tile16.py` writes it; every kernel reads
// it.
//
// A weight [out_features, in_features] is padded to 16 rows and 64 inputs and cut into tiles of 16 rows and blocks of
// 64 inputs; the blocks of one tile follow each other, then comes the next tile.
//
//   tile 0 (rows 0..15)  | block 0 (inputs 0..63) | block 1 (inputs 64..127) | ...
//   tile 1 (rows 16..31) | block 0                | ...
//
// A block is made of planes. A plane is 16 units of 16 bytes, one per row:
//
//   byte 0        16        32                      240       256
//        | row 0  | row 1   | row 2   ...           | row 15  |
//
// A unit is eight 16-bit words. Word i holds, in fields of `field_bits` bits, the codes of inputs i, 8 + i, 16 + i, ...
// of the unit, so that one right shift by field_bits * step of the whole unit puts the eight consecutive inputs
// 8 * step .. 8 * step + 7 into the low bits of its eight words. Eight such inputs are a *step*; a block has 8 steps.
//
//   word i, 4-bit fields    bit 15                             0
//                               step 3 | step 2 | step 1 | step 0      (of input 8 * step + i)
//
//   bits   planes of a block                                  steps per plane   block_bytes
//   2      one                                                8                 256
//   3      one of 2-bit fields (low two bits of the code),    8                 384
//          then 16 rows x 8 bytes: bit `step` of byte i is
//          bit 2 of the code of input 8 * step + i
//   4      two                                                4                 512
//   8      four                                               2                 1024
//
// Values per group (scale, zero) are stored in the order (tile, group, row).
#pragma once

#include <cstdint>

namespace requant {

constexpr int kTileRows = 16;
constexpr int kBlockInputs = 64;
constexpr int kStepInputs = 8;
constexpr int kStepsPerBlock = kBlockInputs / kStepInputs;
constexpr int kUnitBytes = 16;
constexpr int kPlaneBytes = kTileRows * kUnitBytes;
constexpr int kGroupGranularity = 32;  // group_size is a multiple of this many inputs

// Layout of a block of `bits`-bit codes.
template <int kBits>
struct Block {
  static constexpr int kFieldBits = kBits == 3 ? 2 : kBits;
  static constexpr int kStepsPerPlane = 16 / kFieldBits;
  static constexpr int kPlanes = kStepsPerBlock / kStepsPerPlane;
  static constexpr int kBytes = kBlockInputs * kTileRows * kBits / 8;
};

}  // namespace requant
