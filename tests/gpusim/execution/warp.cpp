#include "execution/warp.h"

#include <algorithm>

#include "execution/kernel.h"

namespace gpusim {

Warp::Warp(Block& block, unsigned index, LaneMask threads, const Kernel& kernel)
    : block_(block),
      index_(index),
      kernel_(kernel),
      program_(kernel.instructions.data()),
      registers_(kernel.register_file_bytes),
      threads_(threads),
      live_(threads),
      active_(threads) {
  std::memcpy(registers_.data(), kernel.constants.data(), kernel.constants.size());
}

void Warp::run(uint64_t instructions, std::vector<Tally>& tallies) {
  const uint64_t end = executed_ + instructions;
  while (state_ == WarpState::kReady && executed_ < end) {
    if (pc_ >= lowest_other_) choose_group();
    const Instruction& instruction = program_[pc_];
    const LaneMask lanes = active_ & (predicate(instruction.guard) ^ instruction.guard_flip);
    Tally& tally = tallies[pc_];
    ++executed_;
    ++tally.count.warp;
    tally.count.thread += count_lanes(lanes);
    switch (instruction.flow) {
      case Flow::kNext:
        if (lanes) instruction.execute(*this, instruction, lanes);
        ++pc_;
        break;
      case Flow::kBranch:
        branch(instruction, lanes);
        break;
      case Flow::kIndexedBranch:
        branch_indexed(instruction, lanes);
        break;
      case Flow::kExit:
        exit(lanes);
        break;
      case Flow::kCollective:
      case Flow::kBarrier:
        execute_collective(instruction, lanes, tally);
        break;
    }
  }
}

// The lanes that have arrived are served in sets that name the same members; a set that is not complete waits.
void Warp::execute_collective(const Instruction& instruction, LaneMask lanes, Tally& tally) {
  const uint32_t pc = pc_;
  if (!lanes) {
    ++pc_;
    return;
  }
  const bool barrier = instruction.flow == Flow::kBarrier;
  const LaneMask before = active_;
  join_waiting();
  lanes |= active_ & ~before;
  tally.count.thread += count_lanes(active_ & ~before);
  LaneMask waiting = 0;
  for (LaneMask rest = lanes; rest;) {
    const unsigned lane = first_lane(rest);
    LaneMask members = barrier ? live_ : kAllLanes, set = rest;
    if (!barrier && !instruction.uniform_lanes) {
      const uint32_t* masks = this->lanes<uint32_t>(instruction.operands[instruction.mask_operand]);
      members = masks[lane];
      set = 0;
      for_each_lane(rest, [&](unsigned other) { set |= masks[other] == members ? 1u << other : 0; });
      if (set & ~members) {
        throw Violation{first_lane(set & ~members), "a thread that its member mask does not name executes this"};
      }
      members &= threads_;
    }
    rest &= ~set;
    if (members & ~set) {
      waiting |= set;
    } else if (!barrier) {
      instruction.execute(*this, instruction, set);
    }
  }
  if (waiting) {
    --tally.count.warp;
    tally.count.thread -= count_lanes(waiting);
    wait(pc, waiting);
  } else if (barrier) {
    state_ = WarpState::kAtBarrier;
  } else {
    ++pc_;
  }
}

void Warp::pass_barrier() {
  state_ = WarpState::kReady;
  ++pc_;
}

// Lanes that came here earlier.
void Warp::join_waiting() {
  const auto here = [&](const Group& group) { return group.pc == pc_; };
  for (const Group& group : waiting_) active_ |= here(group) ? group.lanes : 0;
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), here), waiting_.end());
}

// The given lanes wait at pc; the other active lanes go on behind it.
void Warp::wait(uint32_t pc, LaneMask lanes) {
  waiting_.push_back({pc, lanes});
  active_ &= ~lanes;
  pc_ = pc + 1;
  if (!active_) choose_group();
}

// Lanes leave for pc.
void Warp::leave(LaneMask lanes, uint32_t pc) {
  others_.push_back({pc, lanes});
  lowest_other_ = std::min(lowest_other_, pc);
  active_ &= ~lanes;
}

void Warp::exit(LaneMask lanes) {
  for (const Group& group : waiting_) {
    if (lanes && program_[group.pc].flow == Flow::kBarrier) fail_waiting(group);
  }
  ++pc_;
  live_ &= ~lanes;
  active_ &= ~lanes;
  if (!active_) choose_group();
}

// Lanes wait for others that cannot come any more.
void Warp::fail_waiting(const Group& group) {
  pc_ = group.pc;
  throw Violation{first_lane(group.lanes),
                  program_[pc_].flow == Flow::kBarrier
                      ? "divergent barrier: other threads of the warp do not come to it"
                      : "missing lanes: threads that must take part do not come to this instruction"};
}

void Warp::branch(const Instruction& instruction, LaneMask lanes) {
  const LaneMask staying = active_ & ~lanes;
  if (!lanes) {
    ++pc_;
    return;
  }
  if (staying) leave(staying, pc_ + 1);
  pc_ = instruction.target;
}

void Warp::branch_indexed(const Instruction& instruction, LaneMask lanes) {
  const std::vector<uint32_t>& table = kernel_.branch_tables[instruction.immediate];
  const uint32_t* choices = this->lanes<uint32_t>(instruction.operands[0]);
  for_each_lane(lanes, [&](unsigned lane) {
    if (choices[lane] >= table.size()) {
      throw Violation{lane, "index " + std::to_string(choices[lane]) + " is beyond the table of branch targets"};
    }
    leave(1u << lane, table[choices[lane]]);
  });
  ++pc_;
  if (!active_) choose_group();
}

// Makes the group of lowest pc the running one, together with all groups at the same place.
void Warp::choose_group() {
  if (active_) others_.push_back({pc_, active_});
  active_ = 0;
  lowest_other_ = kNowhere;
  if (others_.empty()) {
    if (waiting_.empty()) {
      state_ = WarpState::kExited;
      return;
    }
    fail_waiting(waiting_[0]);
  }
  pc_ = kNowhere;
  for (const Group& group : others_) pc_ = std::min(pc_, group.pc);
  size_t kept = 0;
  for (const Group& group : others_) {
    if (group.pc == pc_) {
      active_ |= group.lanes;
    } else {
      lowest_other_ = std::min(lowest_other_, group.pc);
      others_[kept++] = group;
    }
  }
  others_.resize(kept);
}

}  // namespace gpusim
