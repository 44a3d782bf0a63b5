// Binding: one PTX statement on its way to a decoded instruction. The operations (operations/*.cpp) say through it
// which operands they read and write, and which function executes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "execution/instruction.h"
#include "execution/slots.h"
#include "ptx/module.h"

namespace gpusim {

class Binding {
 public:
  Binding(const Statement& statement, Slots& slots, Instruction& instruction);

  const Statement& statement;
  Instruction& instruction;

  [[noreturn]] void fail(const std::string& message) const;

  // The opcode.
  bool has(std::string_view modifier) const { return statement.has(modifier); }
  // The types of the opcode in their order; counted from the end if negative.
  Type type(int index = -1) const;
  size_t type_count() const { return types_.size(); }
  // The position in `choices` of the modifier that the opcode has; `otherwise` if it has none of them.
  size_t choose(const std::vector<std::string_view>& choices, size_t otherwise) const;

  // The operands.
  size_t operand_count() const { return statement.operands.size(); }
  const Operand& operand(size_t index) const;
  // The elements of a vector, or the operand itself.
  std::vector<Operand> elements(size_t index) const;
  bool is_immediate(const Operand& operand) const;
  uint64_t immediate(const Operand& operand) const;
  // Bytes per lane of a register; 0 for what has no width of its own.
  unsigned register_bytes(const Operand& operand) const;

  // Append the slot of an operand to the instruction. Destinations go first. `bytes` per lane, 0: a predicate.
  void add_destination(const Operand& operand, unsigned bytes);
  void add_source(const Operand& operand, Type type);
  void add_constant(uint32_t value);
  void add_predicate(const Operand& operand);  // negation is added to the instruction's modifier, bit 0
  void add_address(const Operand& operand);
  void add_source_address(const Operand& operand);  // the second address of a copy
  // All operands of an operation on one type: d, a, b, ...
  void add_all(Type type);

  // The slot that always holds true.
  uint32_t always() const { return slots_.always(); }

 private:
  uint32_t source_slot(const Operand& operand, Type type);
  void append(uint32_t slot);
  bool append_address(const Operand& operand);  // says whether it has 64 bits

  Slots& slots_;
  std::vector<Type> types_;
};

}  // namespace gpusim
