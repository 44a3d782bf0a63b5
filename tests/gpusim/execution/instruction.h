// One decoded instruction: what to call, and where its operands stand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "execution/instruction_class.h"
#include "ptx/module.h"

namespace gpusim {

constexpr unsigned kWarpSize = 32;

// Bit i stands for lane i of a warp.
using LaneMask = uint32_t;
constexpr LaneMask kAllLanes = 0xffffffff;

class Warp;
struct Instruction;

// Executes an instruction for the given lanes, which are at least one. Throws Violation.
using Execute = void (*)(Warp&, const Instruction&, LaneMask);

// Moves the elements of a vector access between the bytes of the lanes and the register of one element.
using MoveElement = void (*)(std::byte* lane_bytes, size_t lane_stride, std::byte* slot, LaneMask);

// How a warp goes on after an instruction.
enum class Flow : uint8_t {
  kNext,
  kCollective,  // kNext, once all lanes that take part have arrived
  kBranch,
  kIndexedBranch,
  kExit,
  kBarrier,
};

// Operands are slots of the register file: byte offsets, where the lanes of a register, a constant or a special
// register stand side by side. Destinations come first.
struct Instruction {
  static constexpr unsigned kMaxOperands = 20;

  Execute execute = nullptr;
  Flow flow = Flow::kNext;
  InstructionClass instruction_class = InstructionClass::kInteger;
  uint8_t destinations = 0;
  uint8_t operand_count = 0;
  uint32_t guard = 0;       // slot of the predicate
  LaneMask guard_flip = 0;  // kAllLanes: the guard is negated
  std::array<uint32_t, kMaxOperands> operands{};
  uint32_t index = 0;          // in the kernel
  uint32_t target = 0;         // of a branch: index of an instruction
  uint32_t immediate = 0;      // what an operation wants to remember: a table, a size, a rounding mode
  uint32_t modifier = 0;       // a second one
  bool uniform_lanes = false;  // collective: the whole warp must take part
  uint8_t mask_operand = 0;    // collective: the operand with the member mask, unless uniform_lanes

  // Memory accesses.
  Space space = Space::kGeneric;
  bool wide_address = false;  // 64-bit register
  uint8_t element_bytes = 0;
  uint8_t elements = 0;
  int64_t offset = 0;         // added to the address register
  int64_t source_offset = 0;  // the same for the source of a copy
  bool wide_source_address = false;
  MoveElement move_element = nullptr;

  uint32_t source(unsigned index_of_source) const { return operands[destinations + index_of_source]; }
};

}  // namespace gpusim
