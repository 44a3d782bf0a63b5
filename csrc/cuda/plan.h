// How one call is cut into CTAs. Plain C++, shared by the launchers and by whoever asks for the size of the workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arguments.h"

namespace requant::cuda {

struct Plan {
  int token_tiles;   // 8-token tiles of one CTA
  int row_warps;     // of one CTA, along its rows: with the tiles, its shape
  int token_groups;  // CTAs side by side along the tokens
  int row_groups;    // along the rows
  int splits;        // along the inputs
  int split_inputs;  // of one split
  int chunk_inputs;  // of x in shared memory at a time
  size_t shared_bytes;
};

Plan make_plan(const Weight& weight, int64_t tokens, const Device& device);

}  // namespace requant::cuda
