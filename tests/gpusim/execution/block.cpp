#include "execution/block.h"

#include <algorithm>
#include <map>

namespace gpusim {
namespace {

// Instructions of one warp before it is the next one's turn, so that warps that wait for each other in loops go on.
constexpr uint64_t kTurn = 20000;

unsigned volume(Dimensions size) { return size.x * size.y * size.z; }

}  // namespace

Block::Block(Launch& launch, Dimensions position, SharedMemory& shared)
    : launch_(launch),
      position_(position),
      threads_(volume(launch.block)),
      shared_(shared),
      local_(launch.kernel.local_bytes * threads_) {
  const unsigned warps = (threads_ + kWarpSize - 1) / kWarpSize;
  copies_.resize(warps);
  for (unsigned index = 0; index < warps; ++index) {
    const unsigned lanes = std::min(kWarpSize, threads_ - index * kWarpSize);
    const LaneMask mask = lanes == kWarpSize ? kAllLanes : (1u << lanes) - 1;
    warps_.emplace_back(*this, index, mask, launch.kernel);
    set_special_registers(warps_.back());
  }
  shared_.start_block();
  launch_.global.start_block();
}

void Block::set_special_registers(Warp& warp) {
  const Dimensions& block = launch_.block;
  const Dimensions& grid = launch_.grid;
  const uint32_t shared_bytes = static_cast<uint32_t>(shared_.bytes());
  const std::map<std::string, uint32_t> same = {
      {"%ntid.x", block.x},
      {"%ntid.y", block.y},
      {"%ntid.z", block.z},
      {"%ctaid.x", position_.x},
      {"%ctaid.y", position_.y},
      {"%ctaid.z", position_.z},
      {"%nctaid.x", grid.x},
      {"%nctaid.y", grid.y},
      {"%nctaid.z", grid.z},
      {"%warpid", warp.index()},
      {"%nwarpid", (threads_ + kWarpSize - 1) / kWarpSize},
      {"%smid", 0},
      {"%nsmid", 1},
      {"%total_smem_size", shared_bytes},
      {"%dynamic_smem_size", static_cast<uint32_t>(launch_.dynamic_shared_bytes)},
  };
  for (const SpecialRegister& special : launch_.kernel.special_registers) {
    uint32_t* values = warp.lanes<uint32_t>(special.slot);
    const auto found = same.find(special.name);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      const unsigned thread = warp.index() * kWarpSize + lane;
      if (found != same.end()) {
        values[lane] = found->second;
      } else if (special.name == "%tid.x") {
        values[lane] = thread % block.x;
      } else if (special.name == "%tid.y") {
        values[lane] = thread / block.x % block.y;
      } else if (special.name == "%tid.z") {
        values[lane] = thread / block.x / block.y;
      } else if (special.name == "%laneid") {
        values[lane] = lane;
      } else if (special.name == "%lanemask_eq") {
        values[lane] = 1u << lane;
      } else if (special.name == "%lanemask_lt") {
        values[lane] = (1u << lane) - 1;
      } else if (special.name == "%lanemask_le") {
        values[lane] = (2u << lane) - 1;
      } else if (special.name == "%lanemask_gt") {
        values[lane] = ~((2u << lane) - 1);
      } else if (special.name == "%lanemask_ge") {
        values[lane] = ~((1u << lane) - 1);
      }
    }
  }
}

void Block::run() {
  for (bool alive = true; alive;) {
    alive = false;
    bool progress = false;
    for (Warp& warp : warps_) {
      if (warp.state() == WarpState::kReady) {
        const uint64_t before = warp.executed();
        try {
          warp.run(kTurn, launch_.tallies);
          if (warp.state() == WarpState::kAtBarrier) arrive(warp, warp.current());
        } catch (const Violation& violation) {
          fail(warp, violation);
        }
        progress = true;
        launch_.executed += warp.executed() - before;
        if (launch_.executed > launch_.options.instruction_limit) {
          fail(warp, {first_lane(warp.live() ? warp.live() : 1), "the launch has executed more than " +
                                                                     std::to_string(launch_.options.instruction_limit) +
                                                                     " warp instructions: an endless loop?"});
        }
        if (warp.state() == WarpState::kExited) {
          for (Barrier& barrier : barriers_) complete_if_all_arrived(barrier);
        }
      }
      alive |= warp.state() != WarpState::kExited;
    }
    if (alive && !progress) fail_deadlocked();
  }
}

// Operands of barriers: [result,] number, threads or 0, [predicate].
void Block::arrive(Warp& warp, const Instruction& instruction) {
  const unsigned lane = first_lane(warp.live());
  const uint32_t number = warp.lanes<uint32_t>(instruction.source(0))[lane];
  const uint32_t threads = warp.lanes<uint32_t>(instruction.source(1))[lane];
  if (number >= kBarriers) throw Violation{lane, "there is no barrier " + std::to_string(number)};
  if (threads % kWarpSize != 0) {
    throw Violation{lane, "a barrier of " + std::to_string(threads) + " threads, which is no multiple of 32"};
  }
  Barrier& barrier = barriers_[number];
  const unsigned expected_warps = threads / kWarpSize;
  if (!barrier.arrived) {
    barrier.instruction = instruction.index;
    barrier.expected_warps = expected_warps;
  } else if (barrier.expected_warps != expected_warps) {
    throw Violation{lane, "barrier of " + std::to_string(threads) + " threads, but other warps came to it with " +
                              std::to_string(barrier.expected_warps * kWarpSize) + " threads"};
  } else if (!threads && barrier.instruction != instruction.index) {
    throw Violation{lane, "divergent barrier: other warps of the block wait at " +
                              describe(launch_.kernel.instructions[barrier.instruction])};
  }
  barrier.arrived |= 1u << warp.index();
  barrier.arrival[warp.index()] = shared_.ordering().arrive();
  if (static_cast<BarrierReduction>(instruction.immediate) != BarrierReduction::kNone) {
    const LaneMask holds = warp.predicate(instruction.source(2)) ^ (instruction.modifier ? kAllLanes : 0);
    barrier.count += count_lanes(holds & warp.live());
    barrier.threads += count_lanes(warp.live());
  }
  if (instruction.execute) {  // bar.arrive: goes on without waiting
    warp.pass_barrier();
  } else {
    barrier.waiting |= 1u << warp.index();
  }
  complete_if_all_arrived(barrier);
}

void Block::complete_if_all_arrived(Barrier& barrier) {
  if (!barrier.arrived) return;
  uint32_t exited = 0;
  for (const Warp& warp : warps_) exited |= warp.state() == WarpState::kExited ? 1u << warp.index() : 0;
  const unsigned arrived = static_cast<unsigned>(__builtin_popcount(barrier.arrived));
  if (barrier.expected_warps ? arrived < barrier.expected_warps
                             : static_cast<unsigned>(__builtin_popcount(barrier.arrived | exited)) < warps_.size()) {
    return;
  }
  if (!barrier.expected_warps) {  // what warps did before they exited counts as done
    for (const Warp& warp : warps_) {
      if (exited >> warp.index() & 1) barrier.arrival[warp.index()] = shared_.ordering().now();
    }
    barrier.arrived |= exited;
  }
  shared_.ordering().complete_barrier(barrier.arrived, barrier.waiting, barrier.arrival);
  const Barrier completed = barrier;
  barrier = Barrier();
  ++launch_.barriers;
  for (Warp& warp : warps_) {
    if (!(completed.waiting >> warp.index() & 1)) continue;
    deliver_reduction(warp, completed);
    warp.pass_barrier();
  }
}

void Block::deliver_reduction(Warp& warp, const Barrier& barrier) {
  const Instruction& instruction = warp.current();
  switch (static_cast<BarrierReduction>(instruction.immediate)) {
    case BarrierReduction::kNone:
      break;
    case BarrierReduction::kCount: {
      uint32_t counts[kWarpSize];
      std::fill_n(counts, kWarpSize, barrier.count);
      warp.write(instruction.operands[0], counts, warp.live());
      break;
    }
    case BarrierReduction::kAnd:
      warp.write_predicate(instruction.operands[0], barrier.count == barrier.threads ? kAllLanes : 0, warp.live());
      break;
    case BarrierReduction::kOr:
      warp.write_predicate(instruction.operands[0], barrier.count ? kAllLanes : 0, warp.live());
      break;
  }
}

std::byte* Block::local(const Warp& warp, unsigned lane, uint64_t address, unsigned bytes) {
  const size_t size = launch_.kernel.local_bytes;
  if (address + bytes > size || address + bytes < address) {
    throw Violation{lane, "out-of-bounds access of " + std::to_string(bytes) + " bytes to local address " +
                              std::to_string(address) + "; the thread has " + std::to_string(size) + " bytes"};
  }
  if (address % bytes != 0) {
    throw Violation{
        lane, "misaligned access of " + std::to_string(bytes) + " bytes to local address " + std::to_string(address)};
  }
  return &local_[(warp.index() * kWarpSize + lane) * size + address];
}

std::string Block::describe(const Instruction& instruction) const {
  const SourceLine& source = launch_.kernel.lines[instruction.index];
  return "PTX line " + std::to_string(source.line) + " '" + source.text + "'";
}

void Block::fail_deadlocked() {
  std::string message = launch_.kernel.name + ": deadlock in block (" + std::to_string(position_.x) + ", " +
                        std::to_string(position_.y) + ", " + std::to_string(position_.z) + "):";
  for (const Warp& warp : warps_) {
    if (warp.state() != WarpState::kAtBarrier) continue;
    message += " warp " + std::to_string(warp.index()) + " waits at " + describe(warp.current()) + ";";
  }
  throw SimulationError(message);
}

void Block::fail(const Warp& warp, const Violation& violation) {
  const unsigned thread = warp.index() * kWarpSize + violation.lane;
  const Dimensions& block = launch_.block;
  const auto triple = [](unsigned x, unsigned y, unsigned z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
  };
  throw SimulationError(launch_.kernel.name + ", " + describe(warp.current()) + ", block " +
                        triple(position_.x, position_.y, position_.z) + ", thread " +
                        triple(thread % block.x, thread / block.x % block.y, thread / block.x / block.y) + ": " +
                        violation.message);
}

}  // namespace gpusim
