#include "operations/operations.h"

namespace gpusim {
namespace {

struct Family {
  void (*add)(OperationTable&);
  InstructionClass instruction_class;  // unless an operation says otherwise
};
constexpr Family kFamilies[] = {
    {add_integer_operations, InstructionClass::kInteger},
    {add_bit_operations, InstructionClass::kInteger},
    {add_float_operations, InstructionClass::kFloat},
    {add_conversions, InstructionClass::kConversion},
    {add_moves, InstructionClass::kMove},
    {add_comparisons, InstructionClass::kPredicate},
    {add_memory_operations, InstructionClass::kHint},
    {add_atomics, InstructionClass::kAtomic},
    {add_async_copies, InstructionClass::kAsyncCopy},
    {add_matrix_operations, InstructionClass::kMatrix},
    {add_warp_operations, InstructionClass::kWarp},
    {add_control_operations, InstructionClass::kControl},
};

struct Operation {
  Bind bind;
  InstructionClass instruction_class;
};

const std::unordered_map<std::string_view, Operation>& all_operations() {
  static const auto operations = [] {
    std::unordered_map<std::string_view, Operation> all;
    for (const Family& family : kFamilies) {
      OperationTable table;
      family.add(table);
      for (const auto& [name, bind] : table) all[name] = {bind, family.instruction_class};
    }
    return all;
  }();
  return operations;
}

}  // namespace

void bind_operation(Binding& binding) {
  const auto found = all_operations().find(binding.statement.opcode[0]);
  if (found == all_operations().end()) binding.fail("unknown instruction");
  binding.instruction.instruction_class = found->second.instruction_class;
  found->second.bind(binding);
}

}  // namespace gpusim
