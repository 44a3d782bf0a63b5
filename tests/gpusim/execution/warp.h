// 32 threads that execute together: their registers, and which of them stand where in the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "execution/instruction.h"
#include "execution/tally.h"

namespace gpusim {

class Block;
struct Kernel;

// What a thread did wrong; the block adds where.
struct Violation {
  unsigned lane;
  std::string message;
};

inline unsigned first_lane(LaneMask lanes) { return static_cast<unsigned>(__builtin_ctz(lanes)); }
inline unsigned count_lanes(LaneMask lanes) {
  return lanes == kAllLanes ? kWarpSize : static_cast<unsigned>(__builtin_popcount(lanes));
}

// Calls function(lane) for every lane of the mask.
template <class Function>
void for_each_lane(LaneMask lanes, Function function) {
  for (; lanes; lanes &= lanes - 1) function(first_lane(lanes));
}

enum class WarpState : uint8_t { kReady, kAtBarrier, kExited };

class Warp {
 public:
  Warp(Block& block, unsigned index, LaneMask threads, const Kernel& kernel);

  Block& block() { return block_; }
  unsigned index() const { return index_; }
  LaneMask live() const { return live_; }  // lanes that exist and have not exited
  uint64_t executed() const { return executed_; }
  WarpState state() const { return state_; }

  // Registers.
  template <class T>
  T* lanes(uint32_t slot) {
    return reinterpret_cast<T*>(registers_.data() + slot);
  }
  std::byte* slot_bytes(uint32_t slot) { return registers_.data() + slot; }
  LaneMask predicate(uint32_t slot) { return *lanes<LaneMask>(slot); }
  template <class T>
  void write(uint32_t slot, const T (&results)[kWarpSize], LaneMask mask) {
    T* values = lanes<T>(slot);
    if (mask == kAllLanes) {
      std::memcpy(values, results, sizeof results);
    } else {
      for_each_lane(mask, [&](unsigned lane) { values[lane] = results[lane]; });
    }
  }
  void write_predicate(uint32_t slot, LaneMask results, LaneMask mask) {
    LaneMask& values = *lanes<LaneMask>(slot);
    values = (values & ~mask) | (results & mask);
  }
  LaneMask carry = 0;  // the carry flag of each lane

  // Executes until the warp exits, waits at a barrier, or has executed so many instructions. Throws Violation; the
  // instruction is then current().
  void run(uint64_t instructions, std::vector<Tally>& tallies);
  // Goes on behind the barrier.
  void pass_barrier();
  const Instruction& current() const { return program_[pc_]; }

 private:
  // Lanes at the same instruction.
  struct Group {
    uint32_t pc;
    LaneMask lanes;
  };
  static constexpr uint32_t kNowhere = 0xffffffff;

  void execute_collective(const Instruction& instruction, LaneMask lanes, Tally& tally);
  void wait(uint32_t pc, LaneMask lanes);
  void join_waiting();
  [[noreturn]] void fail_waiting(const Group& group);
  void exit(LaneMask lanes);
  void branch(const Instruction& instruction, LaneMask lanes);
  void branch_indexed(const Instruction& instruction, LaneMask lanes);
  void leave(LaneMask lanes, uint32_t pc);
  void choose_group();

  Block& block_;
  const unsigned index_;
  const Kernel& kernel_;
  const Instruction* const program_;
  std::vector<std::byte> registers_;
  WarpState state_ = WarpState::kReady;
  uint64_t executed_ = 0;
  const LaneMask threads_;  // lanes that exist
  LaneMask live_;

  // The group of lowest pc runs, so that lanes that have gone different ways meet again where the ways do.
  uint32_t pc_ = 0;
  LaneMask active_;
  std::vector<Group> others_;   // that can run
  std::vector<Group> waiting_;  // at a collective instruction or barrier, for lanes that have not come
  uint32_t lowest_other_ = kNowhere;
};

}  // namespace gpusim
