// What one launch of the linear kernel is given, beside the tile shape that is compiled in.
#pragma once

#include "cuda/arguments.h"

namespace requant::cuda {

// The work of one warp between two looks at the scales: a tile of 16 rows by 128 inputs, two blocks of `tile16`.
constexpr int kSpanInputs = 128;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTokensPerTile = 8;  // columns of one mma

struct LinearParameters {
  Weight weight;
  int tiles;            // of 16 rows
  int blocks;           // of 64 inputs, in one tile
  int tile_words;       // 32-bit words of codes in one tile
  int groups;           // in one row
  int inputs_per_group;  // of a row with one group: all of its inputs
  bool narrow_groups;   // groups that are no multiple of kSpanInputs
  const void* x;        // [tokens, in_features], 16-bit
  int tokens;
  bool aligned_x;  // every row of x starts at a multiple of 16 bytes
  const void* bias;
  Dtype bias_dtype;
  void* y;          // [tokens, out_features]; used if there is one split
  float* partials;  // [splits, tokens, out_features]; used otherwise
  int split_inputs;       // inputs of one split
  int chunk_inputs;       // inputs of x in shared memory at a time: a power of two
  int spans_per_chunk_log2;  // of one warp
  int token_slots_log2;   // tokens of a tile, rounded up to a power of two: lanes side by side in the sparse part
  int slices;             // of the sparse index, in one tile
};

// How a CTA's warps share its rows and inputs, by the number of 8-token tiles that it computes.
//
//   tokens   tiles   warps along rows   warps along inputs
//   1..8     1       1                  4
//   9..16    2       2                  2
//   17..32   4       4                  1       more tokens: more CTAs
//
// The more tokens, the more rows share one copy of x, so that x and codes take about the same bandwidth throughout.
template <int kTokenTiles>
struct CtaShape {
  static constexpr int kTokens = kTokensPerTile * kTokenTiles;
  static constexpr int kRowWarps = kTokenTiles;
  static constexpr int kInputWarps = kWarps / kRowWarps;
  static constexpr int kRows = 16 * kRowWarps;
};

}  // namespace requant::cuda
