// Bit operations: logic, shifts, bit fields, lop3, prmt, and counting.
#include <array>

#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct LogicalNot {
  template <class T>
  T operator()(T a) const {
    return a == 0;
  }
};

// Shifts by the width or more leave nothing, or the sign.
template <class T>
T shifted_left(T a, uint32_t amount) {
  return amount < 8 * sizeof(T) ? static_cast<T>(static_cast<uint64_t>(a) << amount) : 0;
}
template <class T>
T shifted_right(T a, uint32_t amount) {
  constexpr uint32_t kLast = 8 * sizeof(T) - 1;
  if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(a >> (amount < kLast ? amount : kLast));
  } else {
    return amount <= kLast ? static_cast<T>(a >> amount) : 0;
  }
}
struct ShiftLeft {
  template <class T>
  T operator()(T a, uint32_t amount) const {
    return shifted_left(a, amount);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, uint32_t amount) const {
    return shifted_right(a, amount);
  }
};
// All lanes by the same amount.
struct ShiftLeftByConstant {
  uint32_t amount;
  explicit ShiftLeftByConstant(const Instruction& instruction) : amount(instruction.immediate) {}
  template <class T>
  T operator()(T a) const {
    return shifted_left(a, amount);
  }
};
struct ShiftRightByConstant {
  uint32_t amount;
  explicit ShiftRightByConstant(const Instruction& instruction) : amount(instruction.immediate) {}
  template <class T>
  T operator()(T a) const {
    return shifted_right(a, amount);
  }
};

// shf: 32 bits out of the pair b:a.
template <bool kLeft, bool kWraps>
struct FunnelShift {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t amount) const {
    const uint32_t n = kWraps ? amount & 31 : amount > 32 ? 32 : amount;
    const uint64_t pair = static_cast<uint64_t>(b) << 32 | a;
    return static_cast<uint32_t>(kLeft ? pair << n >> 32 : pair >> n);
  }
};

// The truth table has the result for a, b, c at bit 4 a + 2 b + c.
template <unsigned kTable>
struct Lop3 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    // Shannon expansion: first by a, then by b; what is left is 0, 1, c or not c.
    return (~a & by_b<kTable & 15>(b, c)) | (a & by_b<(kTable >> 4)>(b, c));
  }
  template <unsigned kQuarter>
  static uint32_t by_b(uint32_t b, uint32_t c) {
    return (~b & by_c<kQuarter & 3>(c)) | (b & by_c<(kQuarter >> 2)>(c));
  }
  template <unsigned kPair>
  static uint32_t by_c(uint32_t c) {
    return kPair == 0 ? 0 : kPair == 1 ? ~c : kPair == 2 ? c : ~0u;
  }
};

template <size_t... kTables>
constexpr std::array<Execute, 256> lop3_functions(std::index_sequence<kTables...>) {
  return {&elementwise<Lop3<kTables>, uint32_t, uint32_t, uint32_t, uint32_t>...};
}

// One byte of the pair b:a; bit 3 of the selector replicates its sign.
inline uint32_t selected_byte(uint32_t a, uint32_t b, uint32_t selector) {
  const uint32_t byte = (selector & 4 ? b : a) >> (8 * (selector & 3)) & 0xff;
  return selector & 8 ? (byte & 0x80 ? 0xff : 0) : byte;
}
struct Permute {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t selector) const {
    uint32_t result = 0;
    for (unsigned i = 0; i < 4; ++i) result |= selected_byte(a, b, selector >> (4 * i) & 15) << (8 * i);
    return result;
  }
};
struct PermuteByConstant {
  uint32_t selectors[4];
  explicit PermuteByConstant(const Instruction& instruction) {
    for (unsigned i = 0; i < 4; ++i) selectors[i] = instruction.immediate >> (4 * i) & 15;
  }
  uint32_t operator()(uint32_t a, uint32_t b) const {
    return selected_byte(a, b, selectors[0]) | selected_byte(a, b, selectors[1]) << 8 |
           selected_byte(a, b, selectors[2]) << 16 | selected_byte(a, b, selectors[3]) << 24;
  }
};
// prmt with a mode: the selector of each byte, for the low two bits of c.
constexpr std::string_view kPermuteModes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
constexpr uint16_t kPermuteSelectors[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123}, {0x0000, 0x1111, 0x2222, 0x3333},
    {0x3210, 0x3211, 0x3222, 0x3333}, {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232},
};
struct PermuteByMode {
  const uint16_t* selectors;
  explicit PermuteByMode(const Instruction& instruction) : selectors(kPermuteSelectors[instruction.immediate]) {}
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const { return Permute()(a, b, selectors[c & 3]); }
};

struct ExtractField {  // bfe: `length` bits from `position` on
  template <class T>
  T operator()(T a, uint32_t position, uint32_t length) const {
    constexpr int kLast = 8 * sizeof(T) - 1;
    const int first = position & 0xff, count = length & 0xff;
    if (count == 0) return 0;
    const uint64_t low = first > kLast ? 0 : static_cast<std::make_unsigned_t<T>>(a) >> first;
    const uint64_t field = count > kLast ? low : low & ((1ull << count) - 1);
    if constexpr (std::is_signed_v<T>) {
      const int sign_position = std::min(first + count - 1, kLast);
      const bool sign = static_cast<uint64_t>(a) >> sign_position & 1;
      const int held = std::min(count, std::max(0, kLast + 1 - first));
      return static_cast<T>(sign && held <= kLast ? field | ~0ull << held : field);
    } else {
      return static_cast<T>(field);
    }
  }
};
struct InsertField {  // bfi: the low `length` bits of a into b
  template <class T>
  T operator()(T a, T b, uint32_t position, uint32_t length) const {
    const unsigned first = position & 0xff, count = length & 0xff;
    if (first >= 8 * sizeof(T) || count == 0) return b;
    const uint64_t mask = (count >= 64 ? ~0ull : (1ull << count) - 1) << first;
    return static_cast<T>((static_cast<uint64_t>(a) << first & mask) | (b & ~mask));
  }
};

struct PopulationCount {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(__builtin_popcountll(a));
  }
};
struct CountLeadingZeros {
  template <class T>
  uint32_t operator()(T a) const {
    return a ? static_cast<uint32_t>(__builtin_clzll(a)) - (64 - 8 * sizeof(T)) : 8 * sizeof(T);
  }
};
template <bool kShiftAmount>
struct FindLeadingBit {  // bfind: its position, or the shift that brings it to the top
  template <class T>
  uint32_t operator()(T a) const {
    constexpr int kBits = 8 * sizeof(T);
    const bool flipped = std::is_signed_v<T> && a < 0;
    const uint64_t value = static_cast<std::make_unsigned_t<T>>(flipped ? static_cast<T>(~a) : a);
    if (value == 0) return ~0u;
    const int position = 63 - __builtin_clzll(value);
    return static_cast<uint32_t>(kShiftAmount ? kBits - 1 - position : position);
  }
};
struct Reverse {
  template <class T>
  T operator()(T a) const {
    T result = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i) result |= (a >> i & T{1}) << (8 * sizeof(T) - 1 - i);
    return result;
  }
};

template <class Functor, unsigned kSources>
void bind_logic(Binding& binding) {
  if (binding.type() == Type::kPredicate) {
    bind_predicate_logic(binding);
    return;
  }
  binding.add_all(binding.type());
  binding.instruction.execute = with_unsigned_type(binding, traits(binding.type()).bytes, [](auto zero) -> Execute {
    return uniform<Functor, decltype(zero), kSources>();
  });
}

template <class Functor, class ByConstant>
void bind_shift(Binding& binding) {
  const Type type = binding.type();
  const Operand& amount = binding.operand(2);
  binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(amount, Type::kU32);
  const bool constant = binding.is_immediate(amount);
  if (constant) binding.instruction.immediate = static_cast<uint32_t>(binding.immediate(amount));
  binding.instruction.execute = with_integer_type(binding, type, [&](auto zero) -> Execute {
    using T = decltype(zero);
    return constant ? &elementwise<ByConstant, T, T> : &elementwise<Functor, T, T, uint32_t>;
  });
}

void bind_funnel_shift(Binding& binding) {
  binding.add_all(Type::kB32);
  const bool wraps = binding.has("wrap");
  binding.instruction.execute = binding.has("l") ? (wraps ? uniform<FunnelShift<true, true>, uint32_t, 3>()
                                                          : uniform<FunnelShift<true, false>, uint32_t, 3>())
                                                 : (wraps ? uniform<FunnelShift<false, true>, uint32_t, 3>()
                                                          : uniform<FunnelShift<false, false>, uint32_t, 3>());
}

void bind_lop3(Binding& binding) {
  constexpr std::array<Execute, 256> kFunctions = lop3_functions(std::make_index_sequence<256>());
  if (binding.operand(0).kind == Operand::Kind::kPair) binding.fail("lop3 with a predicate is not supported");
  binding.add_destination(binding.operand(0), 4);
  for (size_t i = 1; i <= 3; ++i) binding.add_source(binding.operand(i), Type::kB32);
  binding.instruction.execute = kFunctions[binding.immediate(binding.operand(4)) & 0xff];
}

void bind_permute(Binding& binding) {
  binding.add_all(Type::kB32);
  for (size_t mode = 0; mode < std::size(kPermuteModes); ++mode) {
    if (!binding.has(kPermuteModes[mode])) continue;
    binding.instruction.immediate = static_cast<uint32_t>(mode);
    binding.instruction.execute = uniform<PermuteByMode, uint32_t, 3>();
    return;
  }
  const Operand& selector = binding.operand(3);
  if (binding.is_immediate(selector)) {
    binding.instruction.immediate = static_cast<uint32_t>(binding.immediate(selector));
    binding.instruction.execute = &elementwise<PermuteByConstant, uint32_t, uint32_t, uint32_t>;
  } else {
    binding.instruction.execute = uniform<Permute, uint32_t, 3>();
  }
}

void bind_extract_field(Binding& binding) {
  const Type type = binding.type();
  binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), Type::kU32);
  binding.add_source(binding.operand(3), Type::kU32);
  binding.instruction.execute = with_integer_type(binding, type, [](auto zero) -> Execute {
    using T = decltype(zero);
    return &elementwise<ExtractField, T, T, uint32_t, uint32_t>;
  });
}

void bind_insert_field(Binding& binding) {
  const Type type = binding.type();
  binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), type);
  binding.add_source(binding.operand(3), Type::kU32);
  binding.add_source(binding.operand(4), Type::kU32);
  binding.instruction.execute = with_unsigned_type(binding, traits(type).bytes, [](auto zero) -> Execute {
    using T = decltype(zero);
    return &elementwise<InsertField, T, T, T, uint32_t, uint32_t>;
  });
}

// The result has 32 bits whatever the source has.
template <class Functor>
void bind_count(Binding& binding) {
  const Type type = binding.type();
  binding.add_destination(binding.operand(0), 4);
  binding.add_source(binding.operand(1), type);
  binding.instruction.execute = with_integer_type(
      binding, type, [](auto zero) -> Execute { return &elementwise<Functor, uint32_t, decltype(zero)>; });
}

}  // namespace

void add_bit_operations(OperationTable& table) {
  table["and"] = bind_logic<And, 2>;
  table["or"] = bind_logic<Or, 2>;
  table["xor"] = bind_logic<Xor, 2>;
  table["not"] = bind_logic<Not, 1>;
  table["cnot"] = bind_logic<LogicalNot, 1>;
  table["shl"] = bind_shift<ShiftLeft, ShiftLeftByConstant>;
  table["shr"] = bind_shift<ShiftRight, ShiftRightByConstant>;
  table["shf"] = bind_funnel_shift;
  table["lop3"] = bind_lop3;
  table["prmt"] = bind_permute;
  table["bfe"] = bind_extract_field;
  table["bfi"] = bind_insert_field;
  table["popc"] = bind_count<PopulationCount>;
  table["clz"] = bind_count<CountLeadingZeros>;
  table["bfind"] = [](Binding& binding) {
    return binding.has("shiftamt") ? bind_count<FindLeadingBit<true>>(binding)
                                   : bind_count<FindLeadingBit<false>>(binding);
  };
  table["brev"] = bind_logic<Reverse, 1>;
}

}  // namespace gpusim
