// The shared memory of one block, with its checks: bounds, alignment, bytes that nobody has written, data of
// asynchronous copies that nobody has waited for, and races between threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "memory/ordering.h"
#include "memory/shadow.h"
#include "simulator.h"

namespace gpusim {

// A thread of a block.
struct ThreadPlace {
  unsigned warp;
  unsigned lane;
};

class SharedMemory {
 public:
  SharedMemory(size_t bytes, const Options& options);

  void start_block();
  Ordering& ordering() { return ordering_; }
  size_t bytes() const { return data_.size(); }

  // All throw Violation. Addresses are offsets.
  void read(ThreadPlace thread, uint64_t address, unsigned bytes, std::byte* to);
  void write(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from);
  // The bytes, to be changed in place by an atomic operation.
  std::byte* atomic(ThreadPlace thread, uint64_t address, unsigned bytes);
  // An asynchronous copy may write from its start until the thread waits for it.
  void start_copy(ThreadPlace thread, uint64_t address, unsigned bytes);
  void finish_copy(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from);

 private:
  enum State : uint8_t { kUnwritten = 0, kWritten = 1, kInFlight = 2 };

  // Who touched a piece last. Zero: nobody. The latest write and the latest atomic operation as time, warp and lane;
  // the reads since then as the set of warps, and the latest time with the lane.
  struct Cell {
    uint32_t write;
    uint32_t atomic;
    uint32_t read;
    uint32_t reading_warps;
  };
  static constexpr uint32_t kSeveralLanes = kMaxWarps;
  static constexpr uint32_t kMaxTime = 1u << 22;

  uint32_t stamp(ThreadPlace thread) const { return ordering_.now() << 10 | thread.warp << 5 | thread.lane; }
  bool ordered(uint32_t stamp, ThreadPlace thread) const;
  void check_reads(const Cell& cell, ThreadPlace thread, uint64_t offset) const;
  void record_read(Cell& cell, ThreadPlace thread) const;
  void check_place(ThreadPlace thread, uint64_t address, unsigned bytes) const;
  void check_state(ThreadPlace thread, uint64_t address, unsigned bytes) const;
  void check_write(ThreadPlace thread, uint64_t address, unsigned bytes, const std::byte* from);
  [[noreturn]] void race(const char* what, uint32_t stamp, ThreadPlace thread, uint64_t offset) const;

  const Options& options_;
  std::vector<std::byte> data_;
  std::vector<uint8_t> states_;
  std::optional<Shadow<Cell>> shadow_;
  Ordering ordering_;
};

}  // namespace gpusim
