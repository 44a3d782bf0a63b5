// Counting what an access costs the memory system.
#pragma once

#include <cstdint>

#include "execution/instruction.h"
#include "simulator.h"

namespace gpusim {

// One request to global memory: `bytes` per lane.
void count_request(GlobalTraffic& traffic, const uint64_t* addresses, LaneMask lanes, unsigned bytes);

// One request to shared memory. Accesses of 8 and 16 bytes are served half and quarter warp by quarter warp; each part
// takes as many wavefronts as the busiest bank has different words.
void count_request(SharedTraffic& traffic, const uint64_t* addresses, LaneMask lanes, unsigned bytes);

}  // namespace gpusim
