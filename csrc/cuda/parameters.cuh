// What one launch of the linear kernel is given, beside the tile shape that is compiled in.
#pragma once

#include <tuple>

#include "common/tile16.h"
#include "cuda/arguments.h"

namespace requant::cuda {

// The work of one warp between two looks at the scales: a tile of 16 rows by 128 inputs, two blocks of `tile16`.
constexpr int kSpanInputs = 128;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTokensPerTile = 8;  // columns of one mma
constexpr int kRowPadding = 8;  // inputs by which rows of x in shared memory are longer: eight lie in different banks
constexpr int kSumsRowLength = 20;  // of sums of 16 rows at the end: the lanes of a fragment write to different banks

// Spans of codes in shared memory, for every warp. 8-bit ones are long: with more of them a CTA would need more than
// the 48 KB that every device grants.
constexpr int ring_spans(int bits) { return bits == 8 ? 2 : 4; }

struct LinearParameters {
  Weight weight;
  int tiles;                  // of 16 rows
  int blocks;                 // of 64 inputs, in one tile
  int tile_bytes;             // of codes in one tile
  int groups;                 // in one row
  uint32_t group_multiplier;  // input times this, divided by 2^32, is the number of the group
  int scale_bytes_log2;
  const void* x;  // [tokens, in_features], 16-bit
  int tokens;
  bool aligned_x;  // every row of x starts at a multiple of 16 bytes
  const void* bias;
  Dtype bias_dtype;
  void* y;          // [tokens, out_features]; used if there are no partials
  float* partials;  // [splits, tokens, out_features], or null
  // Of a rotated weight, whose rows are others than those of S: what S is multiplied with, and its own partials.
  const void* sparse_x;  // [tokens, sparse_in_features]
  int64_t sparse_in_features;
  Dtype sparse_x_dtype;
  float* sparse_partials;  // [splits, tokens, out_features]
  int split_inputs;        // inputs of one split
  int chunk_inputs;        // inputs of x in shared memory at a time: a power of two
  int chunk_length;        // numbers of such a chunk of all tokens of a CTA, with the padding of its rows
  int token_slots;         // tokens of a CTA, rounded up to a power of two: lanes side by side in the sparse part
  int token_slots_log2;
  int entry_slots;  // and entries side by side: together, a warp
  int slices;       // of the sparse index, in one tile
};

// How a CTA's warps share its rows and inputs, by the number of 8-token tiles that it computes.
//
//   tokens   tiles   warps along rows   warps along inputs
//   1..8     1       1                  4
//   1..8     1       4                  1       of tall layers: a quarter of the CTAs
//   9..16    2       2                  2
//   17..32   4       4                  1       more tokens: more CTAs
//
// The more tokens, the more rows share one copy of x, so that x and codes take about the same bandwidth throughout. In
// a tall layer a warp walks four times as many spans for what it does once for a tile or for a chunk of x.
template <int kTileCount, int kRowWarpCount>
struct CtaShape {
  static constexpr int kTokenTiles = kTileCount;
  static constexpr int kRowWarps = kRowWarpCount;
  static constexpr int kTokens = kTokensPerTile * kTokenTiles;
  static constexpr int kInputWarps = kWarps / kRowWarps;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kStride = kSpanInputs * kInputWarps;  // from one span of a warp to its next
  // Chunks of x are as long as this, or 2, 4, 8 ... times: with few tokens there is room for whole slices of S.
  static constexpr int kSmallestChunk = kTokenTiles == 1 && kStride < kSliceInputs ? kSliceInputs : kStride;
  static constexpr bool kWholeSlices = kSmallestChunk % kSliceInputs == 0;
  // That registers must leave room for: the more tokens, the more sums.
  static constexpr int kCtasPerMultiprocessor = kTokenTiles == 1 ? 5 : kTokenTiles == 2 ? 4 : 3;
};

// All that there are kernels of.
using CtaShapes = std::tuple<CtaShape<1, 1>, CtaShape<1, 4>, CtaShape<2, 2>, CtaShape<4, 4>>;

}  // namespace requant::cuda
