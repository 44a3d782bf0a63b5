// ld, ldu, st, and hints that change nothing here: prefetch, createpolicy, applypriority, discard.
#include <algorithm>

#include "memory/traffic.h"
#include "operations/addresses.h"
#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

constexpr unsigned kMaxAccessBytes = 16;

// The bytes that each lane loads or stores.
struct LaneData {
  alignas(16) std::byte of[kWarpSize][kMaxAccessBytes];
};

// Between the bytes of the lanes and the lanes of a register, which may be wider than the element.
template <class Element, class Register>
void extend(std::byte* lane_bytes, size_t lane_stride, std::byte* slot, LaneMask lanes) {
  Register* registers = reinterpret_cast<Register*>(slot);
  for_each_lane(lanes, [&](unsigned lane) {
    Element element;
    std::memcpy(&element, lane_bytes + lane * lane_stride, sizeof element);
    registers[lane] = static_cast<Register>(element);
  });
}
template <class Element, class Register>
void shorten(std::byte* lane_bytes, size_t lane_stride, std::byte* slot, LaneMask lanes) {
  const Register* registers = reinterpret_cast<const Register*>(slot);
  for_each_lane(lanes, [&](unsigned lane) {
    const Element element = static_cast<Element>(registers[lane]);
    std::memcpy(lane_bytes + lane * lane_stride, &element, sizeof element);
  });
}

template <unsigned kBytes>
void read_window(Warp& warp, const Instruction& instruction, uint64_t window, const Addresses& addresses,
                 LaneMask lanes, LaneData& data) {
  Block& block = warp.block();
  Launch& launch = block.launch();
  const auto read_each = [&](auto source) {
    for_each_lane(lanes, [&](unsigned lane) { std::memcpy(data.of[lane], source(lane), kBytes); });
  };
  if (window == 0) {
    if (instruction.immediate) {
      read_each([&](unsigned lane) { return launch.global.strong_read(lane, addresses.of[lane], kBytes); });
    } else {
      read_each([&](unsigned lane) { return launch.global.read(lane, addresses.of[lane], kBytes); });
    }
    if (instruction.space != Space::kConstant) {
      count_request(block.tally(instruction).global, addresses.of, lanes, kBytes);
    }
  } else if (window == kSharedWindow) {
    for_each_lane(lanes, [&](unsigned lane) {
      block.shared().read({warp.index(), lane}, addresses.of[lane], kBytes, data.of[lane]);
    });
    count_request(block.tally(instruction).shared, addresses.of, lanes, kBytes);
  } else if (window == kLocalWindow) {
    read_each([&](unsigned lane) { return block.local(warp, lane, addresses.of[lane], kBytes); });
  } else {
    read_each([&](unsigned lane) {
      if (addresses.of[lane] + kBytes > launch.parameters.size()) {
        throw Violation{lane, "access beyond the kernel's parameters, or to an address of no memory"};
      }
      return &launch.parameters[addresses.of[lane]];
    });
  }
}

template <unsigned kBytes>
void load(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  Addresses addresses = addresses_of(warp, instruction);
  LaneData data;
  for_each_window(instruction, addresses, lanes, [&](uint64_t window, LaneMask part) {
    read_window<kBytes>(warp, instruction, window, addresses, part, data);
  });
  for (unsigned i = 0; i < instruction.elements; ++i) {
    instruction.move_element(data.of[0] + i * instruction.element_bytes, kMaxAccessBytes,
                             warp.slot_bytes(instruction.operands[i]), lanes);
  }
}

template <unsigned kBytes>
void write_window(Warp& warp, const Instruction& instruction, uint64_t window, const Addresses& addresses,
                  LaneMask lanes, const LaneData& data) {
  Block& block = warp.block();
  GlobalMemory& global = block.launch().global;
  if (window == 0) {
    if (instruction.modifier) global.fence();
    for_each_lane(lanes, [&](unsigned lane) {
      std::byte* to = instruction.immediate ? global.strong_write(lane, addresses.of[lane], kBytes)
                                            : global.write(lane, addresses.of[lane], kBytes);
      std::memcpy(to, data.of[lane], kBytes);
    });
    count_request(block.tally(instruction).global, addresses.of, lanes, kBytes);
  } else if (window == kSharedWindow) {
    for_each_lane(lanes, [&](unsigned lane) {
      block.shared().write({warp.index(), lane}, addresses.of[lane], kBytes, data.of[lane]);
    });
    count_request(block.tally(instruction).shared, addresses.of, lanes, kBytes);
  } else if (window == kLocalWindow) {
    for_each_lane(lanes, [&](unsigned lane) {
      std::memcpy(block.local(warp, lane, addresses.of[lane], kBytes), data.of[lane], kBytes);
    });
  } else {
    throw Violation{first_lane(lanes), "write to parameters, or to an address of no memory"};
  }
}

template <unsigned kBytes>
void store(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  Addresses addresses = addresses_of(warp, instruction);
  LaneData data;
  for (unsigned i = 0; i < instruction.elements; ++i) {
    instruction.move_element(data.of[0] + i * instruction.element_bytes, kMaxAccessBytes,
                             warp.slot_bytes(instruction.source(1 + i)), lanes);
  }
  for_each_window(instruction, addresses, lanes, [&](uint64_t window, LaneMask part) {
    write_window<kBytes>(warp, instruction, window, addresses, part, data);
  });
}

struct AccessFunctions {
  unsigned bytes;
  Execute load, store;
};
constexpr AccessFunctions kAccesses[] = {
    {1, load<1>, store<1>}, {2, load<2>, store<2>},    {4, load<4>, store<4>},
    {8, load<8>, store<8>}, {16, load<16>, store<16>},
};

struct ElementFunctions {
  unsigned element_bytes, register_bytes;
  bool is_signed;
  MoveElement load, store;
};
constexpr ElementFunctions kElements[] = {
    {1, 2, false, extend<uint8_t, uint16_t>, shorten<uint8_t, uint16_t>},
    {1, 4, false, extend<uint8_t, uint32_t>, shorten<uint8_t, uint32_t>},
    {1, 8, false, extend<uint8_t, uint64_t>, shorten<uint8_t, uint64_t>},
    {1, 2, true, extend<int8_t, int16_t>, shorten<uint8_t, uint16_t>},
    {1, 4, true, extend<int8_t, int32_t>, shorten<uint8_t, uint32_t>},
    {1, 8, true, extend<int8_t, int64_t>, shorten<uint8_t, uint64_t>},
    {2, 2, false, extend<uint16_t, uint16_t>, shorten<uint16_t, uint16_t>},
    {2, 4, false, extend<uint16_t, uint32_t>, shorten<uint16_t, uint32_t>},
    {2, 8, false, extend<uint16_t, uint64_t>, shorten<uint16_t, uint64_t>},
    {2, 2, true, extend<int16_t, int16_t>, shorten<uint16_t, uint16_t>},
    {2, 4, true, extend<int16_t, int32_t>, shorten<uint16_t, uint32_t>},
    {2, 8, true, extend<int16_t, int64_t>, shorten<uint16_t, uint64_t>},
    {4, 4, false, extend<uint32_t, uint32_t>, shorten<uint32_t, uint32_t>},
    {4, 8, false, extend<uint32_t, uint64_t>, shorten<uint32_t, uint64_t>},
    {4, 4, true, extend<int32_t, int32_t>, shorten<uint32_t, uint32_t>},
    {4, 8, true, extend<int32_t, int64_t>, shorten<uint32_t, uint64_t>},
    {8, 8, false, extend<uint64_t, uint64_t>, shorten<uint64_t, uint64_t>},
    {8, 8, true, extend<int64_t, int64_t>, shorten<uint64_t, uint64_t>},
};

const AccessFunctions& find_access(const Binding& binding) {
  const unsigned bytes = binding.instruction.element_bytes * binding.instruction.elements;
  for (const AccessFunctions& access : kAccesses) {
    if (access.bytes == bytes) return access;
  }
  binding.fail("an access of " + std::to_string(bytes) + " bytes");
}

const ElementFunctions& find_element(const Binding& binding, unsigned register_bytes) {
  const TypeTraits& type = traits(binding.type());
  for (const ElementFunctions& element : kElements) {
    if (element.element_bytes == type.bytes && element.register_bytes == register_bytes &&
        element.is_signed == (type.kind == Kind::kSigned)) {
      return element;
    }
  }
  binding.fail("a register of the wrong size");
}

// The registers of an access: as wide as the first of them, or as the element.
unsigned common_register_bytes(const Binding& binding, const std::vector<Operand>& registers) {
  for (const Operand& entry : registers) {
    if (const unsigned bytes = binding.register_bytes(entry)) return bytes;
  }
  return std::max(2u, traits(binding.type()).bytes);
}

Type register_type(unsigned bytes) { return bytes == 2 ? Type::kB16 : bytes == 4 ? Type::kB32 : Type::kB64; }

InstructionClass class_of(Space space, bool loads) {
  switch (space) {
    case Space::kGlobal:
      return loads ? InstructionClass::kGlobalLoad : InstructionClass::kGlobalStore;
    case Space::kShared:
      return loads ? InstructionClass::kSharedLoad : InstructionClass::kSharedStore;
    case Space::kLocal:
      return InstructionClass::kLocal;
    case Space::kConstant:
    case Space::kParameter:
      return InstructionClass::kParameterLoad;
    default:
      return InstructionClass::kGenericAccess;
  }
}

// Accesses that are ordered with atomic operations, rather than races with them.
bool is_strong(const Binding& binding) {
  for (const char* word : {"volatile", "relaxed", "acquire", "release", "mmio"}) {
    if (binding.has(word)) return true;
  }
  return false;
}

void bind_access(Binding& binding, bool loads) {
  Instruction& instruction = binding.instruction;
  instruction.space = find_space(binding.statement);
  if (binding.statement.opcode[0] == "ldu") instruction.space = Space::kGlobal;
  instruction.instruction_class = class_of(instruction.space, loads);
  instruction.immediate = is_strong(binding);
  instruction.modifier = binding.has("release");
  const std::vector<Operand> registers = binding.elements(loads ? 0 : 1);
  instruction.elements = static_cast<uint8_t>(registers.size());
  instruction.element_bytes = static_cast<uint8_t>(traits(binding.type()).bytes);
  const unsigned bytes = common_register_bytes(binding, registers);
  const ElementFunctions& element = find_element(binding, bytes);
  if (loads) {
    for (const Operand& entry : registers) binding.add_destination(entry, bytes);
    binding.add_address(binding.operand(1));
    instruction.move_element = element.load;
    instruction.execute = find_access(binding).load;
  } else {
    binding.add_address(binding.operand(0));
    for (const Operand& entry : registers) binding.add_source(entry, register_type(bytes));
    instruction.move_element = element.store;
    instruction.execute = find_access(binding).store;
  }
}

void do_nothing(Warp&, const Instruction&, LaneMask) {}

void bind_hint(Binding& binding) {
  binding.instruction.instruction_class = InstructionClass::kHint;
  binding.instruction.execute = do_nothing;
}

// A cache policy is a number that nobody looks at.
void bind_policy(Binding& binding) {
  binding.instruction.instruction_class = InstructionClass::kHint;
  binding.add_destination(binding.operand(0), 8);
  binding.instruction.execute = [](Warp& warp, const Instruction& instruction, LaneMask lanes) {
    const uint64_t policies[kWarpSize] = {};
    warp.write(instruction.operands[0], policies, lanes);
  };
}

}  // namespace

void add_memory_operations(OperationTable& table) {
  table["ld"] = [](Binding& binding) { bind_access(binding, true); };
  table["ldu"] = [](Binding& binding) { bind_access(binding, true); };
  table["st"] = [](Binding& binding) { bind_access(binding, false); };
  for (const char* name : {"prefetch", "prefetchu", "applypriority", "discard"}) table[name] = bind_hint;
  table["createpolicy"] = bind_policy;
}

}  // namespace gpusim
