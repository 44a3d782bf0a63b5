#include "execution/register_lifetimes.h"

#include <algorithm>
#include <map>

namespace gpusim {
namespace {

// From the first to the last instruction where a register holds a value that is still wanted.
struct Lifetime {
  uint32_t slot;
  uint32_t first = 0xffffffff;
  uint32_t last = 0;

  void include(uint32_t index) {
    first = std::min(first, index);
    last = std::max(last, index);
  }
};

// Straight code without jumps into or out of the middle.
struct BasicBlock {
  uint32_t begin, end;
  std::vector<uint32_t> successors;
  std::vector<bool> read_first;  // slots whose value at the start is wanted
  std::vector<bool> replaced;    // slots that every thread overwrites
  std::vector<bool> alive_at_start;
};

std::vector<BasicBlock> find_blocks(const Kernel& kernel) {
  const std::vector<Instruction>& program = kernel.instructions;
  const uint32_t count = static_cast<uint32_t>(program.size());
  const auto targets = [&](const Instruction& instruction) {
    if (instruction.flow == Flow::kBranch) return std::vector<uint32_t>{instruction.target};
    if (instruction.flow == Flow::kIndexedBranch) return kernel.branch_tables[instruction.immediate];
    return std::vector<uint32_t>();
  };
  std::vector<bool> starts(count + 1);
  starts[0] = true;
  for (uint32_t i = 0; i < count; ++i) {
    const std::vector<uint32_t> places = targets(program[i]);
    for (const uint32_t place : places) starts[place] = true;
    if (!places.empty() || program[i].flow == Flow::kExit) starts[i + 1] = true;
  }
  std::vector<BasicBlock> blocks;
  std::vector<uint32_t> block_at(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (starts[i]) blocks.push_back({i, i, {}, {}, {}, {}});
    block_at[i] = static_cast<uint32_t>(blocks.size() - 1);
    blocks.back().end = i + 1;
  }
  for (BasicBlock& block : blocks) {
    for (const uint32_t place : targets(program[block.end - 1])) block.successors.push_back(block_at[place]);
    if (block.end < count) block.successors.push_back(block_at[block.end]);
  }
  return blocks;
}

void find_uses(const Kernel& kernel, size_t slots, BasicBlock& block) {
  block.read_first.resize(slots);
  block.replaced.resize(slots);
  for (uint32_t i = block.begin; i < block.end; ++i) {
    const Instruction& instruction = kernel.instructions[i];
    const auto read = [&](uint32_t slot) {
      if (!block.replaced[slot]) block.read_first[slot] = true;
    };
    read(instruction.guard);
    for (unsigned k = instruction.destinations; k < instruction.operand_count; ++k) read(instruction.operands[k]);
    const bool guarded = instruction.guard != 0;
    for (unsigned k = 0; k < instruction.destinations; ++k) {
      if (guarded) {
        read(instruction.operands[k]);
      } else {
        block.replaced[instruction.operands[k]] = true;
      }
    }
  }
  block.alive_at_start = block.read_first;
}

// A slot is alive at the end of a block if it is at the start of a successor.
std::vector<bool> alive_at_end(const std::vector<BasicBlock>& blocks, const BasicBlock& block, size_t slots) {
  std::vector<bool> alive(slots);
  for (const uint32_t successor : block.successors) {
    for (size_t slot = 0; slot < slots; ++slot) {
      if (blocks[successor].alive_at_start[slot]) alive[slot] = true;
    }
  }
  return alive;
}

std::vector<Lifetime> find_lifetimes(const Kernel& kernel, size_t slots) {
  std::vector<BasicBlock> blocks = find_blocks(kernel);
  for (BasicBlock& block : blocks) find_uses(kernel, slots, block);
  for (bool changed = true; changed;) {
    changed = false;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      const std::vector<bool> alive = alive_at_end(blocks, *block, slots);
      for (size_t slot = 0; slot < slots; ++slot) {
        if (alive[slot] && !block->replaced[slot] && !block->alive_at_start[slot]) {
          block->alive_at_start[slot] = true;
          changed = true;
        }
      }
    }
  }
  std::vector<Lifetime> lifetimes(slots);
  for (size_t slot = 0; slot < slots; ++slot) lifetimes[slot].slot = static_cast<uint32_t>(slot);
  for (const BasicBlock& block : blocks) {
    const std::vector<bool> alive = alive_at_end(blocks, block, slots);
    for (size_t slot = 0; slot < slots; ++slot) {
      if (block.alive_at_start[slot]) lifetimes[slot].include(block.begin);
      if (alive[slot]) lifetimes[slot].include(block.end - 1);
    }
    for (uint32_t i = block.begin; i < block.end; ++i) {
      const Instruction& instruction = kernel.instructions[i];
      lifetimes[instruction.guard].include(i);
      for (unsigned k = 0; k < instruction.operand_count; ++k) lifetimes[instruction.operands[k]].include(i);
    }
  }
  return lifetimes;
}

}  // namespace

size_t place_registers(const Kernel& kernel, const std::vector<size_t>& register_bytes, size_t begin,
                       std::vector<uint32_t>& places) {
  std::vector<Lifetime> lifetimes = find_lifetimes(kernel, register_bytes.size());
  lifetimes.erase(
      std::remove_if(lifetimes.begin(), lifetimes.end(),
                     [&](const Lifetime& life) { return !register_bytes[life.slot] || life.first > life.last; }),
      lifetimes.end());
  std::sort(lifetimes.begin(), lifetimes.end(), [](const Lifetime& a, const Lifetime& b) { return a.first < b.first; });
  std::map<size_t, std::vector<uint32_t>> free_places;  // by size
  std::multimap<uint32_t, uint32_t> ends;               // last instruction, slot
  size_t end = begin;
  for (const Lifetime& life : lifetimes) {
    while (!ends.empty() && ends.begin()->first < life.first) {
      const uint32_t slot = ends.begin()->second;
      free_places[register_bytes[slot]].push_back(places[slot]);
      ends.erase(ends.begin());
    }
    std::vector<uint32_t>& free = free_places[register_bytes[life.slot]];
    if (free.empty()) {
      places[life.slot] = static_cast<uint32_t>(end);
      end += register_bytes[life.slot];
    } else {
      places[life.slot] = free.back();
      free.pop_back();
    }
    ends.emplace(life.last, life.slot);
  }
  return end;
}

}  // namespace gpusim
