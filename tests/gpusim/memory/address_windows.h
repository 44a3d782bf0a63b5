// Generic addresses: which part of the 64-bit address space stands for which memory.
//
//   0x00....  global and constant memory: host addresses
//   0x01....  shared memory of the block, at its offset
//   0x02....  local memory of the thread
//   0x03....  parameters of the kernel
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "ptx/module.h"

namespace gpusim {

constexpr uint64_t kWindowMask = 0xffull << 56;
constexpr uint64_t kSharedWindow = 1ull << 56;
constexpr uint64_t kLocalWindow = 2ull << 56;
constexpr uint64_t kParameterWindow = 3ull << 56;

constexpr uint64_t window_of(uint64_t address) { return address & kWindowMask; }

constexpr uint64_t window_of(Space space) {
  switch (space) {
    case Space::kShared:
      return kSharedWindow;
    case Space::kLocal:
      return kLocalWindow;
    case Space::kParameter:
      return kParameterWindow;
    default:
      return 0;
  }
}

// By the word in an opcode; a cluster of one block has only its own shared memory.
inline std::optional<uint64_t> find_window(std::string_view space) {
  if (space == "global" || space == "const") return 0;
  if (space == "shared" || space == "shared::cta") return kSharedWindow;
  if (space == "local") return kLocalWindow;
  if (space == "param") return kParameterWindow;
  return std::nullopt;
}

}  // namespace gpusim
