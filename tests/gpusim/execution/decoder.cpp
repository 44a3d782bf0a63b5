#include "execution/decoder.h"

#include <algorithm>

#include "execution/binding.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

// Places variables one behind the other; returns the end. Those without a size share what follows.
size_t place(const std::vector<const Variable*>& variables, Space space,
             std::unordered_map<std::string, Symbol>& symbols) {
  size_t end = 0;
  for (const bool sized : {true, false}) {
    for (const Variable* variable : variables) {
      if ((variable->bytes != 0) != sized) continue;
      const uint64_t address = align_up(end, sized ? variable->alignment : std::max<uint64_t>(variable->alignment, 16));
      symbols[variable->name] = {space, address};
      if (sized) end = address + variable->bytes;
    }
  }
  const bool any_unsized =
      std::any_of(variables.begin(), variables.end(), [](const Variable* variable) { return !variable->bytes; });
  return any_unsized ? align_up(end, 16) : end;
}

class Decoder {
 public:
  Decoder(const Function& function, const ModuleSymbols& module) : function_(function), symbols_(module.placed) {
    kernel_.name = function.name;
    kernel_.parameters = function.parameters;
    kernel_.max_threads = function.max_threads;
    for (const Parameter& parameter : function.parameters) {
      symbols_[parameter.name] = {Space::kParameter, parameter.offset};
      kernel_.parameter_bytes = parameter.offset + parameter.bytes;
    }
    kernel_.static_shared_bytes = place(variables(Space::kShared, module.shared), Space::kShared, symbols_);
    kernel_.local_bytes = align_up(place(variables(Space::kLocal, {}), Space::kLocal, symbols_), 16);
  }

  Kernel decode() {
    Slots slots(function_, symbols_);
    for (const Statement& statement : function_.statements) decode_statement(statement, slots);
    // Running off the end is an exit.
    Instruction end;
    end.flow = Flow::kExit;
    end.instruction_class = InstructionClass::kControl;
    end.guard = slots.always();
    append(end, {function_.statements.empty() ? 0 : function_.statements.back().line, "the end of the kernel"});
    slots.lay_out(kernel_);
    return std::move(kernel_);
  }

 private:
  std::vector<const Variable*> variables(Space space, const std::vector<Variable>& of_module) const {
    std::vector<const Variable*> found;
    for (const auto* list : {&of_module, &function_.variables}) {
      for (const Variable& variable : *list) {
        if (variable.space == space && is_used(variable.name)) found.push_back(&variable);
      }
    }
    return found;
  }

  // Shared variables of a module that the kernel does not mention take no memory.
  bool is_used(const std::string& name) const {
    const auto mentions = [&](const Operand& operand, const auto& self) -> bool {
      return operand.name == name || std::any_of(operand.parts.begin(), operand.parts.end(),
                                                 [&](const Operand& part) { return self(part, self); });
    };
    for (const Statement& statement : function_.statements) {
      for (const Operand& operand : statement.operands) {
        if (mentions(operand, mentions)) return true;
      }
    }
    return false;
  }

  void decode_statement(const Statement& statement, Slots& slots) {
    Instruction instruction;
    Binding binding(statement, slots, instruction);
    instruction.guard = slots.always();
    if (!statement.guard.empty()) {
      instruction.guard = slots.find(statement.guard);
      if (instruction.guard == Slots::kNone || slots.bytes(instruction.guard) != 0)
        binding.fail("the guard is no predicate");
      instruction.guard_flip = statement.guard_negated ? kAllLanes : 0;
    }
    bind_operation(binding);
    if (instruction.flow == Flow::kBranch) instruction.target = find_label(binding, binding.operand(0).name);
    if (instruction.flow == Flow::kIndexedBranch) {
      const auto table = function_.branch_targets.find(binding.operand(1).name);
      if (table == function_.branch_targets.end()) binding.fail("unknown table of branch targets");
      instruction.immediate = static_cast<uint32_t>(kernel_.branch_tables.size());
      kernel_.branch_tables.emplace_back();
      for (const std::string& label : table->second) kernel_.branch_tables.back().push_back(find_label(binding, label));
    }
    append(instruction, {statement.line, statement.text});
  }

  uint32_t find_label(const Binding& binding, const std::string& name) const {
    const auto label = function_.labels.find(name);
    if (label == function_.labels.end()) binding.fail("unknown label");
    return static_cast<uint32_t>(label->second);
  }

  void append(Instruction instruction, SourceLine line) {
    instruction.index = static_cast<uint32_t>(kernel_.instructions.size());
    kernel_.instructions.push_back(instruction);
    kernel_.lines.push_back(std::move(line));
  }

  const Function& function_;
  std::unordered_map<std::string, Symbol> symbols_;
  Kernel kernel_;
};

}  // namespace

Kernel decode(const Function& function, const ModuleSymbols& module) { return Decoder(function, module).decode(); }

}  // namespace gpusim
