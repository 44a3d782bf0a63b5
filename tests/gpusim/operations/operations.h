// All operations by the first word of their opcode.
#pragma once

#include <string_view>
#include <unordered_map>

#include "execution/binding.h"

namespace gpusim {

using Bind = void (*)(Binding&);
using OperationTable = std::unordered_map<std::string_view, Bind>;

void add_integer_operations(OperationTable& table);
void add_bit_operations(OperationTable& table);
void add_float_operations(OperationTable& table);
void add_conversions(OperationTable& table);
void add_moves(OperationTable& table);
void add_comparisons(OperationTable& table);
void add_memory_operations(OperationTable& table);
void add_atomics(OperationTable& table);
void add_async_copies(OperationTable& table);
void add_matrix_operations(OperationTable& table);
void add_warp_operations(OperationTable& table);
void add_control_operations(OperationTable& table);

// Binds a statement to the operation that its opcode names. Throws ParseError.
void bind_operation(Binding& binding);

// Operations that share their name with another family's.
void bind_float_arithmetic(Binding& binding);
void bind_predicate_logic(Binding& binding);
void bind_warp_barrier(Binding& binding);

}  // namespace gpusim
