// The tiles of a weight, and its codes in the layout tile16 (pictures: common/tile16.h).
#pragma once

#include "arguments.h"
#include "common/tile16.h"
#include "kernels/parallel.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

inline int64_t tile_count(const Weight& weight) { return (weight.out_features + kTileRows - 1) / kTileRows; }

template <int kBits>
const uint8_t* tile_codes(const Weight& weight, int64_t tile) {
  const int64_t blocks = (weight.in_features + kBlockInputs - 1) / kBlockInputs;
  return weight.codes + tile * blocks * Block<kBits>::kBytes;
}

// Prepares the inputs of a call, then runs every tile, each on the thread to whose share it belongs.
template <class Inputs, class RunTile>
void for_each_tile(const LinearArguments& arguments, Inputs& inputs, RunTile run_tile) {
  parallel(arguments.threads, [&](const Team& team) {
    inputs.prepare(team);
    const auto [begin, end] = team.share(tile_count(arguments.weight));
    for (int64_t tile = begin; tile < end; ++tile) run_tile(tile);
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
