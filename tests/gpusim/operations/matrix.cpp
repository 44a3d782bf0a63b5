// Matrix instructions: mma.sync, ldmatrix, stmatrix, movmatrix.
//
// A fragment register of lane 4 g + q holds n elements side by side (n = 4 / element bytes):
//
//   A [16, K]   register i: row g + 8 (i % 2), columns n q + 0 .. n - 1 + 4 n (i / 2)
//   B [K, 8]    register i: rows n q + 0 .. n - 1 + 4 n i, column g
//   C [16, 8]   32 bits: register i: row g + 8 (i / 2), column 2 q + i % 2;  f16: register i: row g + 8 i, columns 2 q
//   + 0 .. 1
//
// Products are exact and are summed with C in double, then rounded once to the accumulator's type. A GPU adds in some
// other order with at least the precision of f32.
#include <type_traits>

#include "memory/traffic.h"
#include "operations/addresses.h"
#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

constexpr unsigned kRows = 16, kColumns = 8;

struct Tf32 {
  uint32_t bits;
};
inline float to_float(Tf32 value) { return bit_cast<float>(value.bits & 0xffffe000); }
using gpusim::to_float;

// What an element counts for, and what sums are kept in.
template <class Element>
auto number(Element element) {
  if constexpr (std::is_integral_v<Element>) {
    return static_cast<int32_t>(element);
  } else {
    return static_cast<double>(to_float(element));
  }
}
template <class A>
using Sum = decltype(number(A()));

template <class A, class B, unsigned kDepth>
struct Operands {
  Sum<A> a[kRows][kDepth];
  Sum<A> b[kDepth][kColumns];
};

template <class A, class B, unsigned kDepth>
void gather(Warp& warp, const uint32_t* a_slots, const uint32_t* b_slots, Operands<A, B, kDepth>& operands) {
  constexpr unsigned kElements = 4 / sizeof(A);
  constexpr unsigned kARegisters = kRows * kDepth / kElements / kWarpSize;
  constexpr unsigned kBRegisters = kColumns * kDepth / kElements / kWarpSize;
  Sum<A> values[kWarpSize * kElements];
  for (unsigned i = 0; i < kARegisters; ++i) {
    const A* elements = warp.lanes<A>(a_slots[i]);
    for (unsigned j = 0; j < kWarpSize * kElements; ++j) values[j] = number(elements[j]);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      const unsigned row = lane / 4 + 8 * (i % 2), column = lane % 4 * kElements + 4 * kElements * (i / 2);
      std::memcpy(&operands.a[row][column], &values[lane * kElements], kElements * sizeof values[0]);
    }
  }
  for (unsigned i = 0; i < kBRegisters; ++i) {
    const B* elements = warp.lanes<B>(b_slots[i]);
    for (unsigned j = 0; j < kWarpSize * kElements; ++j) values[j] = number(elements[j]);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      for (unsigned e = 0; e < kElements; ++e) {
        operands.b[lane % 4 * kElements + e + 4 * kElements * i][lane / 4] = values[lane * kElements + e];
      }
    }
  }
}

// Calls function(register, element, row, column) for each element of C that a lane holds.
template <class C, class Function>
void for_each_accumulator(unsigned lane, Function function) {
  constexpr bool kPacked = sizeof(C) == 2;
  for (unsigned i = 0; i < 4; ++i) {
    function(kPacked ? i / 2 : i, kPacked ? i % 2 : 0, lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
  }
}

template <class C, class S>
C finish(S sum, bool saturates) {
  if constexpr (std::is_integral_v<C>) {
    if (saturates && sum > INT32_MAX) return INT32_MAX;
    if (saturates && sum < INT32_MIN) return INT32_MIN;
    return static_cast<C>(sum);
  } else {
    return round_to<C>(sum);
  }
}

// Operands: D, A, B, C. The modifier says that integers saturate.
template <class A, class B, class C, unsigned kDepth>
void multiply(Warp& warp, const Instruction& instruction, LaneMask) {
  constexpr unsigned kElements = 4 / sizeof(A);
  constexpr unsigned kARegisters = kRows * kDepth / kElements / kWarpSize;
  constexpr unsigned kBRegisters = kColumns * kDepth / kElements / kWarpSize;
  constexpr unsigned kPacked = 4 / sizeof(C);
  using Accumulator = std::conditional_t<std::is_integral_v<C>, int64_t, double>;
  Operands<A, B, kDepth> operands;
  const uint32_t* a_slots = &instruction.operands[instruction.destinations];
  const uint32_t* b_slots = a_slots + kARegisters;
  const uint32_t* c_slots = b_slots + kBRegisters;
  gather<A, B, kDepth>(warp, a_slots, b_slots, operands);
  Accumulator sums[kRows][kColumns];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    for_each_accumulator<C>(lane, [&](unsigned i, unsigned element, unsigned row, unsigned column) {
      const C value = warp.lanes<C>(c_slots[i])[lane * kPacked + element];
      sums[row][column] = static_cast<Accumulator>(number(value));
    });
  }
  for (unsigned row = 0; row < kRows; ++row) {
    for (unsigned k = 0; k < kDepth; ++k) {
      for (unsigned column = 0; column < kColumns; ++column) {
        sums[row][column] += static_cast<Accumulator>(operands.a[row][k]) * operands.b[k][column];
      }
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    for_each_accumulator<C>(lane, [&](unsigned i, unsigned element, unsigned row, unsigned column) {
      warp.lanes<C>(instruction.operands[i])[lane * kPacked + element] =
          finish<C>(sums[row][column], instruction.modifier);
    });
  }
}

struct Product {
  std::string_view shape;
  Type a, b, c;
  unsigned depth;
  Execute execute;
};
const Product kProducts[] = {
    {"m16n8k8", Type::kF16, Type::kF16, Type::kF32, 8, multiply<Half, Half, float, 8>},
    {"m16n8k8", Type::kF16, Type::kF16, Type::kF16, 8, multiply<Half, Half, Half, 8>},
    {"m16n8k8", Type::kBf16, Type::kBf16, Type::kF32, 8, multiply<Bfloat16, Bfloat16, float, 8>},
    {"m16n8k4", Type::kTf32, Type::kTf32, Type::kF32, 4, multiply<Tf32, Tf32, float, 4>},
    {"m16n8k8", Type::kTf32, Type::kTf32, Type::kF32, 8, multiply<Tf32, Tf32, float, 8>},
    {"m16n8k16", Type::kF16, Type::kF16, Type::kF32, 16, multiply<Half, Half, float, 16>},
    {"m16n8k16", Type::kF16, Type::kF16, Type::kF16, 16, multiply<Half, Half, Half, 16>},
    {"m16n8k16", Type::kBf16, Type::kBf16, Type::kF32, 16, multiply<Bfloat16, Bfloat16, float, 16>},
    {"m16n8k16", Type::kS8, Type::kS8, Type::kS32, 16, multiply<int8_t, int8_t, int32_t, 16>},
    {"m16n8k16", Type::kU8, Type::kS8, Type::kS32, 16, multiply<uint8_t, int8_t, int32_t, 16>},
    {"m16n8k16", Type::kS8, Type::kU8, Type::kS32, 16, multiply<int8_t, uint8_t, int32_t, 16>},
    {"m16n8k16", Type::kU8, Type::kU8, Type::kS32, 16, multiply<uint8_t, uint8_t, int32_t, 16>},
    {"m16n8k32", Type::kS8, Type::kS8, Type::kS32, 32, multiply<int8_t, int8_t, int32_t, 32>},
    {"m16n8k32", Type::kU8, Type::kS8, Type::kS32, 32, multiply<uint8_t, int8_t, int32_t, 32>},
    {"m16n8k32", Type::kS8, Type::kU8, Type::kS32, 32, multiply<int8_t, uint8_t, int32_t, 32>},
    {"m16n8k32", Type::kU8, Type::kU8, Type::kS32, 32, multiply<uint8_t, uint8_t, int32_t, 32>},
};

void make_whole_warp(Instruction& instruction, InstructionClass instruction_class) {
  instruction.flow = Flow::kCollective;
  instruction.uniform_lanes = true;
  instruction.instruction_class = instruction_class;
}

void bind_product(Binding& binding) {
  // Types in the opcode: D, A, B, C.
  if (!binding.has("sync") || binding.type_count() != 4) binding.fail("only mma.sync.aligned with four types");
  if (!binding.has("row") || !binding.has("col")) binding.fail("only .row.col");
  Instruction& instruction = binding.instruction;
  unsigned depth = 0;
  for (const Product& product : kProducts) {
    if (!binding.has(product.shape) || binding.type(1) != product.a || binding.type(2) != product.b) continue;
    if (binding.type(0) != product.c || binding.type(3) != product.c) continue;
    instruction.execute = product.execute;
    depth = product.depth;
  }
  if (!instruction.execute) binding.fail("this shape or these types are not supported");
  make_whole_warp(instruction, InstructionClass::kMatrix);
  instruction.modifier = binding.has("satfinite");
  const unsigned a_registers = kRows * depth * traits(binding.type(1)).bytes / 4 / kWarpSize;
  const unsigned b_registers = a_registers / 2;
  const unsigned c_registers = binding.type(0) == Type::kF16 ? 2 : 4;
  const unsigned counts[] = {c_registers, a_registers, b_registers, c_registers};
  for (size_t i = 0; i < 4; ++i) {
    const std::vector<Operand> registers = binding.elements(i);
    if (registers.size() != counts[i]) binding.fail("a fragment has the wrong number of registers");
    for (const Operand& entry : registers) {
      if (i == 0) {
        binding.add_destination(entry, 4);
      } else {
        binding.add_source(entry, Type::kB32);
      }
    }
  }
}

// 8x8 matrices of 16 bits. Lane 4 g + q holds row g, columns 2 q and 2 q + 1 of each, or the transposed.
constexpr unsigned kMatrixRows = 8, kRowBytes = 16;

uint16_t* element(uint32_t* fragment, unsigned row, unsigned column, bool transposed) {
  if (transposed) std::swap(row, column);
  return reinterpret_cast<uint16_t*>(&fragment[row * 4 + column / 2]) + column % 2;
}

// The shared addresses of the rows: lanes 8 i .. 8 i + 7 give those of matrix i.
Addresses row_addresses(Warp& warp, const Instruction& instruction) {
  Addresses addresses = addresses_of(warp, instruction);
  if (instruction.space != Space::kGeneric) return addresses;
  for (unsigned lane = 0; lane < kMatrixRows * instruction.elements; ++lane) {
    if (window_of(addresses.of[lane]) != kSharedWindow) throw Violation{lane, "the address is not in shared memory"};
    addresses.of[lane] -= kSharedWindow;
  }
  return addresses;
}

void count_rows(Warp& warp, const Instruction& instruction, const Addresses& addresses) {
  const unsigned lanes = kMatrixRows * instruction.elements;
  count_request(warp.block().tally(instruction).shared, addresses.of, lanes == 32 ? kAllLanes : (1u << lanes) - 1,
                kRowBytes);
}

void load_matrices(Warp& warp, const Instruction& instruction, LaneMask) {
  const Addresses addresses = row_addresses(warp, instruction);
  uint32_t fragments[4][kWarpSize];
  for (unsigned i = 0; i < instruction.elements; ++i) {
    for (unsigned row = 0; row < kMatrixRows; ++row) {
      const unsigned lane = kMatrixRows * i + row;
      std::byte bytes[kRowBytes];
      warp.block().shared().read({warp.index(), lane}, addresses.of[lane], kRowBytes, bytes);
      if (!instruction.modifier) {
        std::memcpy(&fragments[i][row * 4], bytes, kRowBytes);
        continue;
      }
      for (unsigned column = 0; column < 8; ++column) {
        std::memcpy(element(fragments[i], row, column, true), bytes + 2 * column, 2);
      }
    }
  }
  for (unsigned i = 0; i < instruction.elements; ++i) warp.write(instruction.operands[i], fragments[i], kAllLanes);
  count_rows(warp, instruction, addresses);
}

void store_matrices(Warp& warp, const Instruction& instruction, LaneMask) {
  const Addresses addresses = row_addresses(warp, instruction);
  for (unsigned i = 0; i < instruction.elements; ++i) {
    uint32_t* fragment = warp.lanes<uint32_t>(instruction.source(1 + i));
    for (unsigned row = 0; row < kMatrixRows; ++row) {
      const unsigned lane = kMatrixRows * i + row;
      std::byte bytes[kRowBytes];
      for (unsigned column = 0; column < 8; ++column) {
        std::memcpy(bytes + 2 * column, element(fragment, row, column, instruction.modifier), 2);
      }
      warp.block().shared().write({warp.index(), lane}, addresses.of[lane], kRowBytes, bytes);
    }
  }
  count_rows(warp, instruction, addresses);
}

void transpose_matrix(Warp& warp, const Instruction& instruction, LaneMask) {
  uint32_t from[kWarpSize], to[kWarpSize];
  std::memcpy(from, warp.lanes<uint32_t>(instruction.operands[1]), sizeof from);
  for (unsigned row = 0; row < kMatrixRows; ++row) {
    for (unsigned column = 0; column < 8; ++column) {
      *element(to, row, column, true) = *element(from, row, column, false);
    }
  }
  warp.write(instruction.operands[0], to, kAllLanes);
}

void bind_matrix_access(Binding& binding, bool loads) {
  Instruction& instruction = binding.instruction;
  make_whole_warp(instruction, InstructionClass::kMatrixLoad);
  if (!binding.has("m8n8") || !binding.has("b16")) binding.fail("only .m8n8 and .b16");
  instruction.space = find_space(binding.statement);
  instruction.modifier = binding.has("trans");
  const size_t counts[] = {1, 2, 4};
  const size_t count = counts[binding.choose({"x1", "x2", "x4"}, 0)];
  const std::vector<Operand> registers = binding.elements(loads ? 0 : 1);
  if (registers.size() != count) binding.fail("the wrong number of registers");
  instruction.elements = static_cast<uint8_t>(count);
  if (!loads) binding.add_address(binding.operand(0));
  for (const Operand& entry : registers) {
    if (loads) {
      binding.add_destination(entry, 4);
    } else {
      binding.add_source(entry, Type::kB32);
    }
  }
  if (loads) binding.add_address(binding.operand(1));
  instruction.execute = loads ? load_matrices : store_matrices;
}

void bind_transposition(Binding& binding) {
  make_whole_warp(binding.instruction, InstructionClass::kMatrixLoad);
  binding.add_all(Type::kB32);
  binding.instruction.execute = transpose_matrix;
}

}  // namespace

void add_matrix_operations(OperationTable& table) {
  table["mma"] = bind_product;
  table["ldmatrix"] = [](Binding& binding) { bind_matrix_access(binding, true); };
  table["stmatrix"] = [](Binding& binding) { bind_matrix_access(binding, false); };
  table["movmatrix"] = bind_transposition;
}

}  // namespace gpusim
