// Moving and selecting: mov (packing and unpacking, too), selp, slct, cvta, isspacep.
#include "memory/address_windows.h"
#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

struct Identity {
  template <class T>
  T operator()(T a) const {
    return a;
  }
};

Type bits_type(const Binding& binding, unsigned bytes) {
  switch (bytes) {
    case 2:
      return Type::kB16;
    case 4:
      return Type::kB32;
    case 8:
      return Type::kB64;
    default:
      binding.fail("not for registers of this size");
  }
}

// d = {a, b, ...}: a is lowest.
template <class Whole, class Part>
void pack(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  constexpr unsigned kParts = sizeof(Whole) / sizeof(Part);
  Whole results[kWarpSize] = {};
  for (unsigned part = 0; part < kParts; ++part) {
    const Part* from = warp.lanes<Part>(instruction.operands[1 + part]);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      results[lane] |= static_cast<Whole>(static_cast<Whole>(from[lane]) << (8 * sizeof(Part) * part));
    }
  }
  warp.write(instruction.operands[0], results, lanes);
}

// {d, e, ...} = a.
template <class Whole, class Part>
void unpack(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  constexpr unsigned kParts = sizeof(Whole) / sizeof(Part);
  Whole whole[kWarpSize];
  std::memcpy(whole, warp.lanes<Whole>(instruction.operands[kParts]), sizeof whole);
  for (unsigned part = 0; part < kParts; ++part) {
    Part results[kWarpSize];
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      results[lane] = static_cast<Part>(whole[lane] >> (8 * sizeof(Part) * part));
    }
    warp.write(instruction.operands[part], results, lanes);
  }
}

struct PartsFunctions {
  unsigned whole_bytes, parts;
  Execute pack, unpack;
};
const PartsFunctions kParts[] = {
    {4, 2, pack<uint32_t, uint16_t>, unpack<uint32_t, uint16_t>},
    {8, 2, pack<uint64_t, uint32_t>, unpack<uint64_t, uint32_t>},
    {8, 4, pack<uint64_t, uint16_t>, unpack<uint64_t, uint16_t>},
};

void bind_parts(Binding& binding, bool packs) {
  const unsigned bytes = traits(binding.type()).bytes;
  const std::vector<Operand> parts = binding.elements(packs ? 1 : 0);
  const unsigned part_bytes = bytes / static_cast<unsigned>(parts.size());
  for (const PartsFunctions& functions : kParts) {
    if (functions.whole_bytes != bytes || functions.parts != parts.size()) continue;
    if (packs) binding.add_destination(binding.operand(0), bytes);
    for (const Operand& part : parts) {
      if (packs) {
        binding.add_source(part, bits_type(binding, part_bytes));
      } else {
        binding.add_destination(part, part_bytes);
      }
    }
    if (!packs) binding.add_source(binding.operand(1), bits_type(binding, bytes));
    binding.instruction.execute = packs ? functions.pack : functions.unpack;
    return;
  }
  binding.fail("mov between these sizes is not supported");
}

void move_predicate(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const LaneMask value = warp.predicate(instruction.operands[1]) ^ (instruction.modifier ? kAllLanes : 0);
  warp.write_predicate(instruction.operands[0], value, lanes);
}

// Clocks count the instructions that the warp has executed.
template <class T>
void read_clock(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  T results[kWarpSize];
  for (T& result : results) result = static_cast<T>(warp.executed());
  warp.write(instruction.operands[0], results, lanes);
}

void bind_move(Binding& binding) {
  Instruction& instruction = binding.instruction;
  const Type type = binding.type();
  const Operand& source = binding.operand(1);
  if (type == Type::kPredicate) {
    binding.add_destination(binding.operand(0), 0);
    binding.add_predicate(source);
    instruction.execute = move_predicate;
  } else if (source.kind == Operand::Kind::kVector) {
    bind_parts(binding, true);
  } else if (binding.operand(0).kind == Operand::Kind::kVector) {
    bind_parts(binding, false);
  } else if (source.name == "%clock" || source.name == "%clock_hi" || source.name == "%globaltimer_lo") {
    binding.add_destination(binding.operand(0), 4);
    instruction.execute = read_clock<uint32_t>;
  } else if (source.name == "%clock64" || source.name == "%globaltimer") {
    binding.add_destination(binding.operand(0), 8);
    instruction.execute = read_clock<uint64_t>;
  } else {
    binding.add_all(type);
    instruction.execute = with_unsigned_type(
        binding, traits(type).bytes, [](auto zero) -> Execute { return uniform<Identity, decltype(zero), 1>(); });
  }
}

template <class T>
void select(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const T* a = warp.lanes<T>(instruction.operands[1]);
  const T* b = warp.lanes<T>(instruction.operands[2]);
  uint8_t flags[kWarpSize];
  unpack_mask(warp.predicate(instruction.operands[3]) ^ (instruction.modifier ? kAllLanes : 0), flags);
  T results[kWarpSize];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) results[lane] = flags[lane] ? a[lane] : b[lane];
  warp.write(instruction.operands[0], results, lanes);
}

void bind_select(Binding& binding) {
  const Type type = binding.type();
  binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), type);
  binding.add_predicate(binding.operand(3));
  binding.instruction.execute =
      with_unsigned_type(binding, traits(type).bytes, [](auto zero) -> Execute { return select<decltype(zero)>; });
}

struct SelectBySign {  // slct: a if c >= 0, and not for a NaN
  template <class T, class C>
  T operator()(T a, T b, C c) const {
    return c >= 0 ? a : b;
  }
};

void bind_select_by_sign(Binding& binding) {
  const Type type = binding.type(0), sign = binding.type(1);
  binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), type);
  binding.add_source(binding.operand(3), sign);
  binding.instruction.execute = with_unsigned_type(binding, traits(type).bytes, [&](auto zero) -> Execute {
    using T = decltype(zero);
    if (sign == Type::kF32) return &elementwise<SelectBySign, T, T, T, float>;
    return &elementwise<SelectBySign, T, T, T, int32_t>;
  });
}

// Generic addresses of shared, local and parameter memory lie in windows; those of global and constant memory are the
// addresses themselves.
template <class T>
struct AddBase {
  uint64_t base;
  explicit AddBase(const Instruction& instruction) : base(static_cast<uint64_t>(instruction.offset)) {}
  T operator()(T a) const { return static_cast<T>(a + base); }
};

void bind_address_conversion(Binding& binding) {
  const bool to_space = binding.statement.opcode[1] == "to";
  const auto window = find_window(binding.statement.opcode[to_space ? 2 : 1]);
  if (!window) binding.fail("unknown address space");
  binding.add_all(binding.type());
  binding.instruction.offset = static_cast<int64_t>(to_space ? -*window : *window);
  if (traits(binding.type()).bytes != 8) binding.fail("only addresses of 64 bits");
  binding.instruction.execute = &elementwise<AddBase<uint64_t>, uint64_t, uint64_t>;
}

void test_space(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const uint64_t* addresses = warp.lanes<uint64_t>(instruction.operands[1]);
  uint8_t flags[kWarpSize];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    flags[lane] = window_of(addresses[lane]) == static_cast<uint64_t>(instruction.offset);
  }
  warp.write_predicate(instruction.operands[0], pack_mask(flags), lanes);
}

void bind_space_test(Binding& binding) {
  const auto window = find_window(binding.statement.opcode.at(1));
  if (!window) binding.fail("unknown address space");
  binding.add_destination(binding.operand(0), 0);
  binding.add_source(binding.operand(1), Type::kU64);
  binding.instruction.offset = static_cast<int64_t>(*window);
  binding.instruction.execute = test_space;
}

}  // namespace

void add_moves(OperationTable& table) {
  table["mov"] = bind_move;
  table["selp"] = bind_select;
  table["slct"] = bind_select_by_sign;
  table["cvta"] = bind_address_conversion;
  table["isspacep"] = bind_space_test;
}

}  // namespace gpusim
