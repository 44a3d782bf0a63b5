// Addresses of a warp's memory accesses, and the memory that they belong to.
#pragma once

#include <cstdint>

#include "execution/block.h"
#include "execution/warp.h"
#include "memory/address_windows.h"

namespace gpusim {

struct Addresses {
  uint64_t of[kWarpSize];
};

inline Addresses addresses_at(Warp& warp, uint32_t slot, bool wide, int64_t offset) {
  Addresses addresses;
  if (wide) {
    const uint64_t* base = warp.lanes<uint64_t>(slot);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) addresses.of[lane] = base[lane] + static_cast<uint64_t>(offset);
  } else {
    const uint32_t* base = warp.lanes<uint32_t>(slot);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      addresses.of[lane] = static_cast<uint32_t>(base[lane] + static_cast<uint32_t>(offset));
    }
  }
  return addresses;
}

// The address operand, which is the first source.
inline Addresses addresses_of(Warp& warp, const Instruction& instruction) {
  return addresses_at(warp, instruction.source(0), instruction.wide_address, instruction.offset);
}

// Calls function(window, lanes) for the lanes that access the same memory, their addresses made relative to its window.
// Most instructions name their space; generic addresses say it themselves.
template <class Function>
void for_each_window(const Instruction& instruction, Addresses& addresses, LaneMask lanes, Function function) {
  if (instruction.space != Space::kGeneric) {
    function(window_of(instruction.space), lanes);
    return;
  }
  while (lanes) {
    const uint64_t window = window_of(addresses.of[first_lane(lanes)]);
    LaneMask same = 0;
    for_each_lane(lanes, [&](unsigned lane) {
      if (window_of(addresses.of[lane]) != window) return;
      same |= 1u << lane;
      addresses.of[lane] -= window;
    });
    lanes &= ~same;
    function(window, same);
  }
}

// The space that an opcode names, or generic.
inline Space find_space(const Statement& statement) {
  for (size_t i = 1; i < statement.opcode.size(); ++i) {
    const std::string& word = statement.opcode[i];
    if (word == "global") return Space::kGlobal;
    if (word == "shared" || word == "shared::cta") return Space::kShared;
    if (word == "local") return Space::kLocal;
    if (word == "const") return Space::kConstant;
    if (word == "param" || word == "param::entry") return Space::kParameter;
  }
  return Space::kGeneric;
}

}  // namespace gpusim
