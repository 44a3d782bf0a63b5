#include "execution/async_copies.h"

#include <cstring>

#include "execution/warp.h"

namespace gpusim {

void AsyncCopies::start(unsigned lane, uint64_t address, unsigned bytes, const std::byte* data) {
  Copy copy{static_cast<uint8_t>(lane), static_cast<uint8_t>(bytes), groups_[lane], address, {}};
  std::memcpy(copy.data.data(), data, bytes);
  copies_.push_back(copy);
}

void AsyncCopies::commit(LaneMask lanes) {
  for_each_lane(lanes, [&](unsigned lane) { ++groups_[lane]; });
}

template <class Predicate>
void AsyncCopies::land(Predicate landed, unsigned warp, SharedMemory& shared) {
  size_t kept = 0;
  for (const Copy& copy : copies_) {
    if (landed(copy)) {
      shared.finish_copy({warp, copy.lane}, copy.address, copy.bytes, copy.data.data());
    } else {
      copies_[kept++] = copy;
    }
  }
  copies_.resize(kept);
}

void AsyncCopies::wait_for_groups(LaneMask lanes, uint32_t pending_groups, unsigned warp, SharedMemory& shared) {
  const auto landed = [&](const Copy& copy) {
    return (lanes >> copy.lane & 1) && copy.group + pending_groups < groups_[copy.lane];
  };
  land(landed, warp, shared);
}

void AsyncCopies::wait_for_all(LaneMask lanes, unsigned warp, SharedMemory& shared) {
  land([&](const Copy& copy) { return (lanes >> copy.lane & 1) != 0; }, warp, shared);
}

}  // namespace gpusim
