// A thread block (CTA): its warps, their turns, and the barriers between them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "execution/async_copies.h"
#include "execution/launch.h"
#include "execution/warp.h"
#include "memory/shared_memory.h"

namespace gpusim {

constexpr unsigned kBarriers = 16;

// How a block reduces predicates at a barrier (bar.red).
enum class BarrierReduction : uint32_t { kNone, kCount, kAnd, kOr };

class Block {
 public:
  // The shared memory is the launch's, used by one block after the other.
  Block(Launch& launch, Dimensions position, SharedMemory& shared);

  // Runs all threads to their end. Throws SimulationError.
  void run();

  Launch& launch() { return launch_; }
  SharedMemory& shared() { return shared_; }
  AsyncCopies& copies(const Warp& warp) { return copies_[warp.index()]; }
  Tally& tally(const Instruction& instruction) { return launch_.tallies[instruction.index]; }

  // The local memory of a thread. Throws Violation unless the access is within bounds and aligned.
  std::byte* local(const Warp& warp, unsigned lane, uint64_t address, unsigned bytes);

  // A warp has come to a barrier, all its lanes together.
  void arrive(Warp& warp, const Instruction& instruction);

 private:
  struct Barrier {
    uint32_t arrived = 0;  // warps
    uint32_t waiting = 0;  // warps
    uint32_t instruction = 0;
    unsigned expected_warps = 0;  // 0: all that are alive
    unsigned count = 0;           // reduction: threads whose predicate holds
    unsigned threads = 0;         // reduction: threads that have arrived
    Ordering::Times arrival{};
  };

  void set_special_registers(Warp& warp);
  void complete_if_all_arrived(Barrier& barrier);
  void deliver_reduction(Warp& warp, const Barrier& barrier);
  [[noreturn]] void fail_deadlocked();
  [[noreturn]] void fail(const Warp& warp, const Violation& violation);
  std::string describe(const Instruction& instruction) const;

  Launch& launch_;
  const Dimensions position_;
  const unsigned threads_;
  SharedMemory& shared_;
  std::vector<std::byte> local_;
  std::deque<Warp> warps_;
  std::vector<AsyncCopies> copies_;
  std::array<Barrier, kBarriers> barriers_{};
};

}  // namespace gpusim
