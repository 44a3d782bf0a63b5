// What all blocks of a launch have in common.
#pragma once

#include <cstddef>
#include <vector>

#include "execution/kernel.h"
#include "execution/tally.h"
#include "memory/global_memory.h"
#include "simulator.h"

namespace gpusim {

struct Launch {
  const Kernel& kernel;
  Dimensions grid;
  Dimensions block;
  size_t dynamic_shared_bytes;
  std::vector<std::byte> parameters;
  const Options& options;
  GlobalMemory& global;
  std::vector<Tally> tallies;  // of the kernel's instructions
  uint64_t executed = 0;       // warp instructions
  uint64_t barriers = 0;
};

}  // namespace gpusim
