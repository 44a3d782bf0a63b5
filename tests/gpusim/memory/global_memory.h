// Global memory: the registered regions of host memory, with their checks: bounds, alignment, permission, bytes that
// nobody has written, and races between the blocks of a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "memory/shadow.h"
#include "simulator.h"

namespace gpusim {

class GlobalMemory {
 public:
  explicit GlobalMemory(const Options& options) : options_(options) {}

  void add_region(uint64_t address, uint64_t bytes, Access access, const std::string& name);
  void remove_region(uint64_t address) { regions_.erase(address); }
  void clear_regions();
  void mark_initialised(uint64_t address, uint64_t bytes);

  // Blocks that run after this are ordered after all that ran before.
  void start_launch();
  void start_block();

  // Check an access of one thread and return the bytes. Throw Violation of the given lane.
  const std::byte* read(unsigned lane, uint64_t address, unsigned bytes);
  std::byte* write(unsigned lane, uint64_t address, unsigned bytes);
  std::byte* atomic(unsigned lane, uint64_t address, unsigned bytes);
  // Volatile, relaxed, acquiring and releasing accesses, which do not race with atomic operations.
  const std::byte* strong_read(unsigned lane, uint64_t address, unsigned bytes);
  std::byte* strong_write(unsigned lane, uint64_t address, unsigned bytes);

  // Atomic operations order blocks: what a block did before a fence and an atomic operation happens before what another
  // does after an atomic operation on the same address.
  void fence() { fenced_ = true; }

 private:
  // Blocks that touched a piece last; numbers below first_block_ are of earlier launches.
  struct Cell {
    uint32_t writer;
    uint32_t atomic;
    uint32_t reader;
  };
  static constexpr uint32_t kSeveralBlocks = 1u << 31;  // added to the number of the latest

  struct Region {
    uint64_t begin;
    uint64_t end;
    Access access;
    std::string name;
    std::vector<uint8_t> written;  // kUninitialised: per byte
    std::unique_ptr<Shadow<Cell>> shadow;
  };

  Region& find(unsigned lane, uint64_t address, unsigned bytes);
  Region& find_writable(unsigned lane, uint64_t address, unsigned bytes);
  void check_written(const Region& region, unsigned lane, uint64_t address, unsigned bytes) const;
  // Calls function(cell, address) for the cells of an access.
  template <class Function>
  void visit(Region& region, uint64_t address, unsigned bytes, Function function);
  bool concurrent(uint32_t toucher) const;
  void synchronize(uint64_t address);
  [[noreturn]] void race(const Region& region, unsigned lane, uint64_t address, const char* what, uint32_t block) const;
  static std::string place(const Region& region, uint64_t address);

  const Options& options_;
  std::map<uint64_t, Region> regions_;  // by first address
  Region* latest_ = nullptr;
  uint32_t first_block_ = 1;
  uint32_t next_block_ = 1;
  uint32_t block_ = 0;
  bool fenced_ = false;
  std::map<uint64_t, std::set<uint32_t>> releases_;  // blocks, by the address of their atomic operation
  std::set<uint32_t> acquired_;                      // blocks that are ordered before the running one
};

}  // namespace gpusim
