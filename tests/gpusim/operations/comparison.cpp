// Comparisons: setp and set, with a boolean operation on another predicate; testp; logic on predicates.
#include <cmath>

#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

// The second half holds for a NaN on either side, too.
enum class Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan };
const std::vector<std::string_view> kComparisonNames = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                                        "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
// For unsigned integers.
const std::vector<std::string_view> kUnsignedNames = {"eq", "ne", "lo", "ls", "hi", "hs"};

template <Comparison kComparison, class T>
bool compare(T a, T b) {
  const bool unordered = a != a || b != b;
  switch (kComparison) {
    case Comparison::kEq:
      return a == b;
    case Comparison::kNe:
      return a != b && !unordered;
    case Comparison::kLt:
      return a < b;
    case Comparison::kLe:
      return a <= b;
    case Comparison::kGt:
      return a > b;
    case Comparison::kGe:
      return a >= b;
    case Comparison::kEqu:
      return a == b || unordered;
    case Comparison::kNeu:
      return a != b;
    case Comparison::kLtu:
      return a < b || unordered;
    case Comparison::kLeu:
      return a <= b || unordered;
    case Comparison::kGtu:
      return a > b || unordered;
    case Comparison::kGeu:
      return a >= b || unordered;
    case Comparison::kNum:
      return !unordered;
    default:
      return unordered;
  }
}

template <class T>
T comparable(T value) {
  return value;
}
inline float comparable(Half value) { return to_float(value); }
inline float comparable(Bfloat16 value) { return to_float(value); }

// Compares the lanes' elements number `part` of `kPacked`.
using Compare = LaneMask (*)(Warp&, const Instruction&, unsigned part);

template <Comparison kComparison, class T, unsigned kPacked>
LaneMask compare_lanes(Warp& warp, const Instruction& instruction, unsigned part) {
  const T* a = warp.lanes<T>(instruction.source(0)) + part;
  const T* b = warp.lanes<T>(instruction.source(1)) + part;
  uint8_t flags[kWarpSize];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    flags[lane] = compare<kComparison>(comparable(a[lane * kPacked]), comparable(b[lane * kPacked]));
  }
  return pack_mask(flags);
}

enum class Combination : uint32_t { kNone, kAnd, kOr, kXor };
const std::vector<std::string_view> kCombinationNames = {"-", "and", "or", "xor"};

// The modifier of an instruction: negation of the combined predicate in bit 0, the combination above.
LaneMask combine(Warp& warp, const Instruction& instruction, LaneMask result) {
  const auto combination = static_cast<Combination>(instruction.modifier >> 1);
  if (combination == Combination::kNone) return result;
  const LaneMask other = warp.predicate(instruction.source(2)) ^ (instruction.modifier & 1 ? kAllLanes : 0);
  switch (combination) {
    case Combination::kAnd:
      return result & other;
    case Combination::kOr:
      return result | other;
    default:
      return result ^ other;
  }
}

// setp p|q: q gets the combination with the opposite result; for packed types, p and q get one half each.
template <Comparison kComparison, class T, unsigned kPacked>
void set_predicate(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const LaneMask first = compare_lanes<kComparison, T, kPacked>(warp, instruction, 0);
  const LaneMask results[2] = {
      combine(warp, instruction, first),
      combine(warp, instruction,
              kPacked == 2 ? compare_lanes<kComparison, T, kPacked>(warp, instruction, kPacked - 1) : ~first),
  };
  for (unsigned i = 0; i < instruction.destinations; ++i) {
    warp.write_predicate(instruction.operands[i], results[i], lanes);
  }
}

// set: the result as a number in `kPacked` parts of a register: all bits or 1.0 of the destination type.
template <Comparison kComparison, class T, unsigned kPacked>
void set_register(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  uint32_t results[kWarpSize] = {};
  for (unsigned part = 0; part < kPacked; ++part) {
    const LaneMask result = combine(warp, instruction, compare_lanes<kComparison, T, kPacked>(warp, instruction, part));
    for_each_lane(result, [&](unsigned lane) { results[lane] |= instruction.immediate << (16 * part); });
  }
  if (instruction.element_bytes == 4) {
    warp.write(instruction.operands[0], results, lanes);
  } else {
    uint16_t low[kWarpSize];
    for (unsigned lane = 0; lane < kWarpSize; ++lane) low[lane] = static_cast<uint16_t>(results[lane]);
    warp.write(instruction.operands[0], low, lanes);
  }
}

struct ComparisonFunctions {
  Execute set_predicate, set_register;
};

template <class T, unsigned kPacked, size_t... kIndices>
ComparisonFunctions select(size_t comparison, std::index_sequence<kIndices...>) {
  static constexpr ComparisonFunctions kFunctions[] = {
      {set_predicate<static_cast<Comparison>(kIndices), T, kPacked>,
       set_register<static_cast<Comparison>(kIndices), T, kPacked>}...};
  return kFunctions[comparison];
}

ComparisonFunctions functions_for(Binding& binding, Type type) {
  size_t comparison = binding.choose(kComparisonNames, kComparisonNames.size());
  if (comparison == kComparisonNames.size()) comparison = binding.choose(kUnsignedNames, kComparisonNames.size());
  if (comparison == kComparisonNames.size()) binding.fail("unknown comparison");
  constexpr auto kAll = std::make_index_sequence<14>();
  switch (type) {
    case Type::kF16:
      return select<Half, 1>(comparison, kAll);
    case Type::kF16x2:
      return select<Half, 2>(comparison, kAll);
    case Type::kBf16:
      return select<Bfloat16, 1>(comparison, kAll);
    case Type::kBf16x2:
      return select<Bfloat16, 2>(comparison, kAll);
    case Type::kF32:
      return select<float, 1>(comparison, kAll);
    case Type::kF64:
      return select<double, 1>(comparison, kAll);
    default:
      return with_integer_type(binding, type, [&](auto zero) {
        return select<decltype(zero), 1>(comparison, std::make_index_sequence<14>());
      });
  }
}

void add_comparison_sources(Binding& binding, Type type) {
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), type);
  const size_t combination = binding.choose(kCombinationNames, 0);
  if (combination) binding.add_predicate(binding.operand(3));
  binding.instruction.modifier |= static_cast<uint32_t>(combination) << 1;
}

void bind_set_predicate(Binding& binding) {
  const Operand& destination = binding.operand(0);
  if (destination.kind == Operand::Kind::kPair) {
    for (const Operand& part : destination.parts) binding.add_destination(part, 0);
  } else {
    binding.add_destination(destination, 0);
  }
  add_comparison_sources(binding, binding.type());
  binding.instruction.execute = functions_for(binding, binding.type()).set_predicate;
}

void bind_set_register(Binding& binding) {
  const Type to = binding.type(0), from = binding.type(1);
  const unsigned bytes = traits(to).bytes;
  binding.add_destination(binding.operand(0), bytes);
  add_comparison_sources(binding, from);
  const bool packed = from == Type::kF16x2 || from == Type::kBf16x2;
  uint32_t holds = packed ? 0xffff : 0xffffffff;
  if (to == Type::kF32) holds = bit_cast<uint32_t>(1.0f);
  if (to == Type::kF16 || to == Type::kF16x2) holds = round_to<Half>(1.0f).bits;
  if (to == Type::kBf16 || to == Type::kBf16x2) holds = round_to<Bfloat16>(1.0f).bits;
  binding.instruction.immediate = holds;
  binding.instruction.element_bytes = static_cast<uint8_t>(bytes);
  binding.instruction.execute = functions_for(binding, from).set_register;
}

// testp: the class of a floating-point number.
const std::vector<std::string_view> kTestNames = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};

template <class T>
void test(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const T* values = warp.lanes<T>(instruction.operands[1]);
  LaneMask results = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const int number_class = std::fpclassify(values[lane]);
    const bool holds[] = {number_class != FP_NAN && number_class != FP_INFINITE,
                          number_class == FP_INFINITE,
                          number_class != FP_NAN,
                          number_class == FP_NAN,
                          number_class == FP_NORMAL,
                          number_class == FP_SUBNORMAL};
    results |= static_cast<LaneMask>(holds[instruction.immediate]) << lane;
  }
  warp.write_predicate(instruction.operands[0], results, lanes);
}

void bind_test(Binding& binding) {
  const size_t name = binding.choose(kTestNames, kTestNames.size());
  if (name == kTestNames.size()) binding.fail("unknown class of numbers");
  binding.add_destination(binding.operand(0), 0);
  binding.add_source(binding.operand(1), binding.type());
  binding.instruction.immediate = static_cast<uint32_t>(name);
  binding.instruction.execute = binding.type() == Type::kF64 ? test<double> : test<float>;
}

template <LaneMask (*kFunction)(LaneMask, LaneMask)>
void predicate_logic(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const LaneMask a = warp.predicate(instruction.operands[1]);
  const LaneMask b = warp.predicate(instruction.operands[instruction.operand_count - 1]);
  warp.write_predicate(instruction.operands[0], kFunction(a, b), lanes);
}

LaneMask logical_and(LaneMask a, LaneMask b) { return a & b; }
LaneMask logical_or(LaneMask a, LaneMask b) { return a | b; }
LaneMask logical_xor(LaneMask a, LaneMask b) { return a ^ b; }
LaneMask logical_not(LaneMask a, LaneMask) { return ~a; }

}  // namespace

void bind_predicate_logic(Binding& binding) {
  const std::string& name = binding.statement.opcode[0];
  binding.add_all(Type::kPredicate);
  binding.instruction.instruction_class = InstructionClass::kPredicate;
  if (name == "and") {
    binding.instruction.execute = predicate_logic<logical_and>;
  } else if (name == "or") {
    binding.instruction.execute = predicate_logic<logical_or>;
  } else if (name == "xor") {
    binding.instruction.execute = predicate_logic<logical_xor>;
  } else if (name == "not") {
    binding.instruction.execute = predicate_logic<logical_not>;
  } else {
    binding.fail("not for predicates");
  }
}

void add_comparisons(OperationTable& table) {
  table["setp"] = bind_set_predicate;
  table["set"] = bind_set_register;
  table["testp"] = bind_test;
}

}  // namespace gpusim
