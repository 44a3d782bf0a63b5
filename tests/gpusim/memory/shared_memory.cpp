#include "memory/shared_memory.h"

#include <cstring>

#include "execution/warp.h"

namespace gpusim {

SharedMemory::SharedMemory(size_t bytes, const Options& options)
    : options_(options), data_(bytes), states_(bytes + 16), shadow_(bytes) {}

void SharedMemory::start_block() {
  if (ordering_.now() > kMaxTime / 2) {  // stamps would overflow
    shadow_.emplace(data_.size());
    ordering_.forget();
  }
  ordering_.start_block();
  std::memset(states_.data(), kUnwritten, states_.size());
}

void SharedMemory::check_place(ThreadPlace thread, uint64_t address, unsigned bytes) const {
  if (address % bytes != 0) {
    throw Violation{thread.lane, "misaligned access of " + std::to_string(bytes) + " bytes to shared address " +
                                     std::to_string(address)};
  }
  if (address + bytes > data_.size()) {
    throw Violation{thread.lane, "out-of-bounds access of " + std::to_string(bytes) + " bytes to shared address " +
                                     std::to_string(address) + "; the block has " + std::to_string(data_.size()) +
                                     " bytes"};
  }
}

void SharedMemory::check_state(ThreadPlace thread, uint64_t address, unsigned bytes) const {
  constexpr uint64_t kAllWritten = 0x0101010101010101;
  uint64_t states[2] = {kAllWritten, kAllWritten};
  std::memcpy(states, &states_[address], bytes);
  if (states[0] == kAllWritten && states[1] == kAllWritten) return;
  for (uint64_t i = address; i < address + bytes; ++i) {
    if (states_[i] == kInFlight) {
      throw Violation{thread.lane, "read of shared address " + std::to_string(i) +
                                       ", to which an asynchronous copy is in flight that nobody has waited for"};
    }
    if (states_[i] == kUnwritten && options_.check_initialised) {
      throw Violation{thread.lane, "read of uninitialised shared address " + std::to_string(i)};
    }
  }
}

bool SharedMemory::ordered(uint32_t stamp, ThreadPlace thread) const {
  const unsigned warp = stamp >> 5 & 31;
  return stamp >> 10 < ordering_.known(thread.warp)[warp] || (warp == thread.warp && (stamp & 31) == thread.lane);
}

void SharedMemory::race(const char* what, uint32_t stamp, ThreadPlace thread, uint64_t offset) const {
  throw Violation{thread.lane, "shared-memory race at address " + std::to_string(offset) + ": " + what + " by thread " +
                                   std::to_string(stamp & 1023) + " of the block without a barrier in between"};
}

void SharedMemory::check_reads(const Cell& cell, ThreadPlace thread, uint64_t offset) const {
  if (!cell.reading_warps) return;
  const uint32_t time = cell.read >> 6;
  const uint32_t lane = cell.read & 63;
  const auto fail = [&](unsigned warp) {
    throw Violation{thread.lane, "shared-memory race at address " + std::to_string(offset) +
                                     ": write after a read by another thread of warp " + std::to_string(warp) +
                                     " without a barrier in between"};
  };
  const Ordering::Times& known = ordering_.known(thread.warp);
  if (cell.reading_warps >> thread.warp & 1 && time >= known[thread.warp] && lane != thread.lane) fail(thread.warp);
  if (time < ordering_.horizon(thread.warp)) return;
  for (unsigned warp = 0; warp < kMaxWarps; ++warp) {
    if (warp != thread.warp && cell.reading_warps >> warp & 1 && time >= known[warp]) fail(warp);
  }
}

void SharedMemory::record_read(Cell& cell, ThreadPlace thread) const {
  const uint32_t own = 1u << thread.warp;
  const uint32_t time = cell.read >> 6;
  const bool all_before = cell.reading_warps == own ? time < ordering_.known(thread.warp)[thread.warp]
                                                    : time < ordering_.horizon(thread.warp);
  uint32_t lane = thread.lane;
  if (!cell.reading_warps || all_before) {
    cell.reading_warps = own;
  } else {
    if ((cell.read & 63) != lane || cell.reading_warps != own) lane = kSeveralLanes;
    cell.reading_warps |= own;
  }
  cell.read = ordering_.now() << 6 | lane;
}

void SharedMemory::read(ThreadPlace thread, uint64_t address, unsigned bytes, std::byte* to) {
  check_place(thread, address, bytes);
  check_state(thread, address, bytes);
  if (options_.check_races) {
    shadow_->visit(address, bytes, [&](Cell& cell, uint64_t offset, unsigned) {
      if (cell.write && !ordered(cell.write, thread)) race("read after a write", cell.write, thread, offset);
      if (cell.atomic && !ordered(cell.atomic, thread)) {
        race("read after an atomic operation", cell.atomic, thread, offset);
      }
      record_read(cell, thread);
    });
  }
  std::memcpy(to, &data_[address], bytes);
}

// `from` is null where the bytes to be written are not known yet. Threads may write the same bytes twice.
void SharedMemory::check_write(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from) {
  check_place(thread, address, bytes);
  for (uint64_t i = address; i < address + bytes; ++i) {
    if (states_[i] == kInFlight) {
      throw Violation{thread.lane, "write to shared address " + std::to_string(i) +
                                       ", to which an asynchronous copy is in flight that nobody has waited for"};
    }
  }
  if (!options_.check_races) return;
  shadow_->visit(address, bytes, [&](Cell& cell, uint64_t offset, unsigned cell_bytes) {
    if (cell.write && !ordered(cell.write, thread) &&
        !(from && std::memcmp(&data_[offset], from + (offset - address), cell_bytes) == 0)) {
      race("write after a write", cell.write, thread, offset);
    }
    if (cell.atomic && !ordered(cell.atomic, thread)) {
      race("write after an atomic operation", cell.atomic, thread, offset);
    }
    check_reads(cell, thread, offset);
    cell = {stamp(thread), 0, 0, 0};
  });
}

void SharedMemory::write(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from) {
  check_write(thread, address, bytes, from);
  std::memcpy(&data_[address], from, bytes);
  std::memset(&states_[address], kWritten, bytes);
}

std::byte* SharedMemory::atomic(ThreadPlace thread, uint64_t address, unsigned bytes) {
  check_place(thread, address, bytes);
  check_state(thread, address, bytes);
  if (options_.check_races) {
    shadow_->visit(address, bytes, [&](Cell& cell, uint64_t offset, unsigned) {
      if (cell.write && !ordered(cell.write, thread)) {
        race("atomic operation after a write", cell.write, thread, offset);
      }
      check_reads(cell, thread, offset);
      cell.atomic = stamp(thread);
    });
  }
  return &data_[address];
}

void SharedMemory::start_copy(ThreadPlace thread, uint64_t address, unsigned bytes) {
  check_write(thread, address, bytes, nullptr);
  std::memset(&states_[address], kInFlight, bytes);
}

void SharedMemory::finish_copy(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from) {
  std::memcpy(&data_[address], from, bytes);
  std::memset(&states_[address], kWritten, bytes);
  if (!options_.check_races) return;
  shadow_->visit(address, bytes, [&](Cell& cell, uint64_t, unsigned) { cell = {stamp(thread), 0, 0, 0}; });
}

}  // namespace gpusim
