#include "memory/global_memory.h"

#include <algorithm>
#include <cstring>

#include "execution/warp.h"

namespace gpusim {

void GlobalMemory::add_region(uint64_t address, uint64_t bytes, Access access, const std::string& name) {
  if (!bytes) return;
  const auto next = regions_.lower_bound(address);
  const bool same = next != regions_.end() && next->first == address && next->second.end == address + bytes;
  if (!same) {
    const Region* overlap = nullptr;
    if (next != regions_.end() && next->second.begin < address + bytes) overlap = &next->second;
    if (next != regions_.begin() && std::prev(next)->second.end > address) overlap = &std::prev(next)->second;
    if (overlap) throw std::invalid_argument("region '" + name + "' overlaps region '" + overlap->name + "'");
  }
  Region region{address, address + bytes, access, name, {}, nullptr};
  if (access == Access::kUninitialised) region.written.resize(bytes);
  regions_[address] = std::move(region);
  latest_ = nullptr;
}

void GlobalMemory::clear_regions() {
  regions_.clear();
  latest_ = nullptr;
}

void GlobalMemory::mark_initialised(uint64_t address, uint64_t bytes) {
  for (auto& [begin, region] : regions_) {
    if (region.access != Access::kUninitialised) continue;
    const uint64_t from = std::max(address, region.begin), to = std::min(address + bytes, region.end);
    if (from < to) std::memset(&region.written[from - begin], 1, to - from);
  }
}

void GlobalMemory::start_block() {
  block_ = next_block_++;
  fenced_ = false;
  acquired_.clear();
}

std::string GlobalMemory::place(const Region& region, uint64_t address) {
  return "byte " + std::to_string(address - region.begin) + " of '" + region.name + "' (" +
         std::to_string(region.end - region.begin) + " bytes)";
}

GlobalMemory::Region& GlobalMemory::find(unsigned lane, uint64_t address, unsigned bytes) {
  if (!latest_ || address < latest_->begin || address >= latest_->end) {
    auto next = regions_.upper_bound(address);
    latest_ = next == regions_.begin() ? nullptr : &std::prev(next)->second;
  }
  if (!latest_ || address + bytes > latest_->end) {
    std::string message = "out-of-bounds access of " + std::to_string(bytes) + " bytes to global memory";
    // The closest region below is what a kernel most often runs over.
    if (latest_) {
      message += ", " + std::to_string(address - latest_->begin) + " bytes from the start of '" + latest_->name +
                 "' (" + std::to_string(latest_->end - latest_->begin) + " bytes)";
    }
    latest_ = nullptr;
    throw Violation{lane, message};
  }
  if (address % bytes != 0) {
    throw Violation{lane, "misaligned access of " + std::to_string(bytes) + " bytes to " + place(*latest_, address)};
  }
  return *latest_;
}

GlobalMemory::Region& GlobalMemory::find_writable(unsigned lane, uint64_t address, unsigned bytes) {
  Region& region = find(lane, address, bytes);
  if (region.access == Access::kReadOnly) {
    throw Violation{lane, "write to read-only memory, " + place(region, address)};
  }
  return region;
}

void GlobalMemory::check_written(const Region& region, unsigned lane, uint64_t address, unsigned bytes) const {
  if (region.access != Access::kUninitialised || !options_.check_initialised) return;
  for (uint64_t i = address - region.begin; i < address - region.begin + bytes; ++i) {
    if (!region.written[i]) throw Violation{lane, "read of uninitialised memory, " + place(region, region.begin + i)};
  }
}

template <class Function>
void GlobalMemory::visit(Region& region, uint64_t address, unsigned bytes, Function function) {
  const uint64_t base = region.begin / 4 * 4;
  if (!region.shadow) region.shadow = std::make_unique<Shadow<Cell>>(region.end - base);
  region.shadow->visit(address - base, bytes,
                       [&](Cell& cell, size_t offset, unsigned) { function(cell, base + offset); });
}

void GlobalMemory::start_launch() {
  first_block_ = next_block_;
  releases_.clear();
}

bool GlobalMemory::concurrent(uint32_t toucher) const {
  const uint32_t block = toucher & ~kSeveralBlocks;
  if (block < first_block_) return false;
  if (toucher & kSeveralBlocks) return true;
  return block != block_ && !acquired_.count(block);
}

// Acquires what other blocks have released at the address, and releases what this block has done before its fence.
void GlobalMemory::synchronize(uint64_t address) {
  if (!fenced_ && releases_.empty()) return;
  const auto released = releases_.find(address);
  if (released != releases_.end()) acquired_.insert(released->second.begin(), released->second.end());
  if (!fenced_) return;
  std::set<uint32_t>& blocks = releases_[address];
  blocks.insert(acquired_.begin(), acquired_.end());
  blocks.insert(block_);
}

void GlobalMemory::race(const Region& region, unsigned lane, uint64_t address, const char* what, uint32_t block) const {
  const std::string other =
      block & kSeveralBlocks ? "several blocks" : "block " + std::to_string(block - first_block_) + " of the launch";
  throw Violation{lane, "race between blocks at " + place(region, address) + ": " + what + " by " + other};
}

const std::byte* GlobalMemory::read(unsigned lane, uint64_t address, unsigned bytes) {
  Region& region = find(lane, address, bytes);
  if (region.access != Access::kReadOnly) {
    check_written(region, lane, address, bytes);
    if (options_.check_races) {
      visit(region, address, bytes, [&](Cell& cell, uint64_t at) {
        if (concurrent(cell.writer)) race(region, lane, at, "read after a write", cell.writer);
        if (concurrent(cell.atomic)) race(region, lane, at, "read after an atomic operation", cell.atomic);
        cell.reader = concurrent(cell.reader) ? block_ | kSeveralBlocks : block_;
      });
    }
  }
  return reinterpret_cast<const std::byte*>(address);
}

std::byte* GlobalMemory::write(unsigned lane, uint64_t address, unsigned bytes) {
  Region& region = find_writable(lane, address, bytes);
  if (options_.check_races) {
    visit(region, address, bytes, [&](Cell& cell, uint64_t at) {
      if (concurrent(cell.writer)) race(region, lane, at, "write after a write", cell.writer);
      if (concurrent(cell.atomic)) race(region, lane, at, "write after an atomic operation", cell.atomic);
      if (concurrent(cell.reader)) race(region, lane, at, "write after a read", cell.reader);
      cell.writer = block_;
    });
  }
  if (!region.written.empty()) std::memset(&region.written[address - region.begin], 1, bytes);
  return reinterpret_cast<std::byte*>(address);
}

std::byte* GlobalMemory::atomic(unsigned lane, uint64_t address, unsigned bytes) {
  check_written(find_writable(lane, address, bytes), lane, address, bytes);
  return strong_write(lane, address, bytes);
}

std::byte* GlobalMemory::strong_write(unsigned lane, uint64_t address, unsigned bytes) {
  Region& region = find_writable(lane, address, bytes);
  if (options_.check_races) {
    synchronize(address);
    visit(region, address, bytes, [&](Cell& cell, uint64_t at) {
      if (concurrent(cell.writer)) race(region, lane, at, "atomic operation after a write", cell.writer);
      if (concurrent(cell.reader)) race(region, lane, at, "atomic operation after a read", cell.reader);
      cell.atomic = block_;
    });
  }
  if (!region.written.empty()) std::memset(&region.written[address - region.begin], 1, bytes);
  return reinterpret_cast<std::byte*>(address);
}

const std::byte* GlobalMemory::strong_read(unsigned lane, uint64_t address, unsigned bytes) {
  Region& region = find(lane, address, bytes);
  check_written(region, lane, address, bytes);
  if (region.access != Access::kReadOnly && options_.check_races) {
    synchronize(address);
    visit(region, address, bytes, [&](Cell& cell, uint64_t at) {
      if (concurrent(cell.writer)) race(region, lane, at, "read after a write", cell.writer);
    });
  }
  return reinterpret_cast<const std::byte*>(address);
}

}  // namespace gpusim
