// The asynchronous copies (cp.async) of one warp that are under way. Data lands as late as the program allows: where
// the thread waits for it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "execution/instruction.h"
#include "memory/shared_memory.h"

namespace gpusim {

class AsyncCopies {
 public:
  static constexpr unsigned kMaxBytes = 16;

  void start(unsigned lane, uint64_t address, unsigned bytes, const std::byte* data);
  // The lanes' copies since the last commit form a group.
  void commit(LaneMask lanes);
  // Lands all groups of the lanes but the latest `pending_groups`.
  void wait_for_groups(LaneMask lanes, uint32_t pending_groups, unsigned warp, SharedMemory& shared);
  // Lands all copies of the lanes, committed or not.
  void wait_for_all(LaneMask lanes, unsigned warp, SharedMemory& shared);

 private:
  struct Copy {
    uint8_t lane;
    uint8_t bytes;
    uint32_t group;
    uint64_t address;
    std::array<std::byte, kMaxBytes> data;
  };

  template <class Predicate>
  void land(Predicate landed, unsigned warp, SharedMemory& shared);

  std::vector<Copy> copies_;
  std::array<uint32_t, kWarpSize> groups_{};  // committed by each lane
};

}  // namespace gpusim
