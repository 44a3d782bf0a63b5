#include "execution/binding.h"

#include <cstring>

namespace gpusim {

Binding::Binding(const Statement& bound_statement, Slots& slots, Instruction& bound_instruction)
    : statement(bound_statement), instruction(bound_instruction), slots_(slots) {
  for (size_t i = 1; i < statement.opcode.size(); ++i) {
    if (const auto found = find_type(statement.opcode[i])) types_.push_back(*found);
  }
}

void Binding::fail(const std::string& message) const {
  throw ParseError("PTX line " + std::to_string(statement.line) + " '" + statement.text + "': " + message);
}

Type Binding::type(int index) const {
  const int count = static_cast<int>(types_.size());
  const int position = index < 0 ? count + index : index;
  if (position < 0 || position >= count) fail("a type is missing");
  return types_[position];
}

size_t Binding::choose(const std::vector<std::string_view>& choices, size_t otherwise) const {
  for (size_t i = 0; i < choices.size(); ++i) {
    if (has(choices[i])) return i;
  }
  return otherwise;
}

const Operand& Binding::operand(size_t index) const {
  if (index >= statement.operands.size()) fail("too few operands");
  return statement.operands[index];
}

std::vector<Operand> Binding::elements(size_t index) const {
  const Operand& whole = operand(index);
  return whole.kind == Operand::Kind::kVector ? whole.parts : std::vector<Operand>{whole};
}

bool Binding::is_immediate(const Operand& operand) const { return operand.kind == Operand::Kind::kInteger; }

uint64_t Binding::immediate(const Operand& operand) const {
  if (!is_immediate(operand)) fail("expected an immediate integer");
  return operand.bits;
}

unsigned Binding::register_bytes(const Operand& operand) const {
  if (operand.kind != Operand::Kind::kName) return 0;
  const uint32_t slot = slots_.find(operand.name);
  return slot == Slots::kNone ? 0 : slots_.bytes(slot);
}

void Binding::append(uint32_t slot) {
  if (instruction.operand_count == Instruction::kMaxOperands) fail("too many operands");
  instruction.operands[instruction.operand_count++] = slot;
}

void Binding::add_destination(const Operand& operand, unsigned bytes) {
  if (instruction.operand_count != instruction.destinations) fail("a result behind a source");
  uint32_t slot = Slots::kNone;
  if (operand.kind == Operand::Kind::kSink) slot = slots_.scratch(bytes);
  if (operand.kind == Operand::Kind::kName) slot = slots_.find(operand.name);
  if (slot == Slots::kNone) fail("the result is no register");
  if (slots_.bytes(slot) != bytes) fail("the register of the result has the wrong size");
  append(slot);
  ++instruction.destinations;
}

uint32_t Binding::source_slot(const Operand& operand, Type type) {
  const unsigned bytes = traits(type).bytes;
  switch (operand.kind) {
    case Operand::Kind::kName: {
      const uint32_t slot = slots_.find(operand.name);
      if (slot != Slots::kNone) {
        if (slots_.bytes(slot) != bytes) fail("register '" + operand.name + "' has the wrong size");
        return slot;
      }
      if (const Symbol* symbol = slots_.find_symbol(operand.name)) {
        return slots_.constant(bytes, symbol->address + operand.bits);
      }
      if (operand.name == "WARP_SZ") return slots_.constant(bytes, kWarpSize);
      fail("unknown name '" + operand.name + "'");
    }
    case Operand::Kind::kInteger:
      if (type == Type::kPredicate) return slots_.constant(0, operand.bits ? kAllLanes : 0);
      return slots_.constant(bytes, operand.bits);
    case Operand::Kind::kFloat32:
    case Operand::Kind::kFloat64: {
      const bool narrow = operand.kind == Operand::Kind::kFloat32;
      if (type == Type::kF64 && narrow) fail("a 32-bit number for a 64-bit operand");
      if (narrow || bytes == 8) return slots_.constant(bytes, operand.bits);
      double value;
      std::memcpy(&value, &operand.bits, sizeof value);
      const float rounded = static_cast<float>(value);
      uint32_t bits;
      std::memcpy(&bits, &rounded, sizeof bits);
      return slots_.constant(bytes, bits);
    }
    default:
      fail("an operand of the wrong kind");
  }
}

void Binding::add_source(const Operand& operand, Type type) { append(source_slot(operand, type)); }

void Binding::add_constant(uint32_t value) { append(slots_.constant(4, value)); }

void Binding::add_predicate(const Operand& operand) {
  append(source_slot(operand, Type::kPredicate));
  if (operand.negated) instruction.modifier |= 1;
}

bool Binding::append_address(const Operand& operand) {
  if (operand.kind != Operand::Kind::kAddress) fail("expected an address");
  if (operand.parts.empty()) {
    append(slots_.constant(8, 0));
    return true;
  }
  const Operand& base = operand.parts[0];
  const bool wide = register_bytes(base) != 4;
  append(source_slot(base, wide ? Type::kU64 : Type::kU32));
  return wide;
}

void Binding::add_address(const Operand& operand) {
  instruction.wide_address = append_address(operand);
  instruction.offset = static_cast<int64_t>(operand.bits);
}

void Binding::add_source_address(const Operand& operand) {
  instruction.wide_source_address = append_address(operand);
  instruction.source_offset = static_cast<int64_t>(operand.bits);
}

void Binding::add_all(Type type) {
  add_destination(operand(0), traits(type).bytes);
  for (size_t i = 1; i < operand_count(); ++i) add_source(operand(i), type);
}

}  // namespace gpusim
