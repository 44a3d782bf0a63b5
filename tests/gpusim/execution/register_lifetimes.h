// PTX has as many registers as it likes, each mostly written once. Registers that are never alive together share a
// place, so that a warp's register file stays in the processor's cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "execution/kernel.h"

namespace gpusim {

// Writes the places of all slots with register_bytes > 0, from `begin` on; returns the end. The kernel's instructions
// name slots by number.
size_t place_registers(const Kernel& kernel, const std::vector<size_t>& register_bytes, size_t begin,
                       std::vector<uint32_t>& places);

}  // namespace gpusim
