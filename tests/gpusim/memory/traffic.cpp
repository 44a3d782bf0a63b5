#include "memory/traffic.h"

#include <algorithm>

#include "execution/warp.h"

namespace gpusim {
namespace {

constexpr unsigned kSectorBytes = 32;
constexpr unsigned kBanks = 32;
constexpr unsigned kWordBytes = 4;

// Wavefronts for lanes that are served together.
unsigned count_wavefronts(const uint64_t* addresses, LaneMask lanes, unsigned bytes) {
  const unsigned words = std::max(1u, bytes / kWordBytes);
  uint64_t held[kBanks][kWarpSize];
  uint8_t counts[kBanks] = {};
  unsigned busiest = 0;
  for_each_lane(lanes, [&](unsigned lane) {
    for (unsigned i = 0; i < words; ++i) {
      const uint64_t word = addresses[lane] / kWordBytes + i;
      const unsigned bank = word % kBanks;
      const uint64_t* end = held[bank] + counts[bank];
      if (std::find(static_cast<const uint64_t*>(held[bank]), end, word) != end) continue;
      held[bank][counts[bank]++] = word;
      busiest = std::max<unsigned>(busiest, counts[bank]);
    }
  });
  return busiest;
}

}  // namespace

void count_request(GlobalTraffic& traffic, const uint64_t* addresses, LaneMask lanes, unsigned bytes) {
  uint64_t sectors[kWarpSize];
  unsigned count = 0;
  bool ascending = true;
  for_each_lane(lanes, [&](unsigned lane) {
    const uint64_t sector = addresses[lane] / kSectorBytes;
    if (count && sectors[count - 1] == sector) return;
    ascending &= !count || sectors[count - 1] < sector;
    sectors[count++] = sector;
  });
  if (!ascending) {
    std::sort(sectors, sectors + count);
    count = static_cast<unsigned>(std::unique(sectors, sectors + count) - sectors);
  }
  ++traffic.requests;
  traffic.sectors += count;
  traffic.bytes += count_lanes(lanes) * bytes;
}

void count_request(SharedTraffic& traffic, const uint64_t* addresses, LaneMask lanes, unsigned bytes) {
  const unsigned together = std::min(kWarpSize, kBanks * kWordBytes / bytes);
  ++traffic.requests;
  for (unsigned first = 0; first < kWarpSize; first += together) {
    const LaneMask part = lanes & (together == kWarpSize ? kAllLanes : ((1u << together) - 1) << first);
    if (!part) continue;
    traffic.wavefronts += count_wavefronts(addresses, part, bytes);
    ++traffic.ideal_wavefronts;
  }
}

}  // namespace gpusim
