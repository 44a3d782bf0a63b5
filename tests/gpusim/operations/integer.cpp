// Integer arithmetic: add, sub, mul, mad, div, rem, min, max, abs, neg, sad, dp4a, dp2a, and the forms with carry.
#include <algorithm>
#include <limits>

#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

// Wrapping arithmetic, without the undefined overflow of signed integers and the promotion of short ones to int.
template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
uint64_t bits(T value) {
  return static_cast<uint64_t>(static_cast<Unsigned<T>>(value));
}

// An integer of twice the width.
template <class T>
struct Double;
template <>
struct Double<uint16_t> {
  using Type = uint32_t;
};
template <>
struct Double<int16_t> {
  using Type = int32_t;
};
template <>
struct Double<uint32_t> {
  using Type = uint64_t;
};
template <>
struct Double<int32_t> {
  using Type = int64_t;
};
template <>
struct Double<uint64_t> {
  using Type = unsigned __int128;
};
template <>
struct Double<int64_t> {
  using Type = __int128;
};

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
  }
};
struct AddSaturated {  // only .s32
  int32_t operator()(int32_t a, int32_t b) const {
    return static_cast<int32_t>(
        std::clamp<int64_t>(int64_t{a} + b, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
  }
};
struct SubtractSaturated {
  int32_t operator()(int32_t a, int32_t b) const {
    return static_cast<int32_t>(
        std::clamp<int64_t>(int64_t{a} - b, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
  }
};
struct MultiplyLow {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(bits(a) * bits(b));
  }
};
struct MultiplyHigh {
  template <class T>
  T operator()(T a, T b) const {
    using Wide = typename Double<T>::Type;
    return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b) >> (8 * sizeof(T)));
  }
};
struct MultiplyWide {
  template <class T>
  typename Double<T>::Type operator()(T a, T b) const {
    using Wide = typename Double<T>::Type;
    return static_cast<Wide>(a) * static_cast<Wide>(b);
  }
};
template <class Multiply>
struct MultiplyAdd {
  template <class T, class U>
  U operator()(T a, T b, U c) const {
    return Add()(static_cast<U>(Multiply()(a, b)), c);
  }
};
// Products of the low 24 bits: the low or the high 32 of 48 bits.
template <unsigned kShift>
struct Multiply24 {
  template <class T>
  T operator()(T a, T b) const {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    const auto low = [](T value) {
      return static_cast<Wide>(static_cast<T>(static_cast<Unsigned<T>>(value) << 8)) >> 8;
    };
    return static_cast<T>(low(a) * low(b) >> kShift);
  }
};
struct Divide {  // by zero: all bits set, as machines do
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return Subtract()(T{0}, a);
    }
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? Subtract()(T{0}, a) : a;
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return Subtract()(T{0}, a);
  }
};
struct SumOfDifference {  // sad: c + |a - b|
  template <class T, class U>
  U operator()(T a, T b, U c) const {
    return Add()(c, static_cast<U>(a < b ? Subtract()(b, a) : Subtract()(a, b)));
  }
};

template <class Functor, unsigned kSources>
Execute bind_uniform(Binding& binding) {
  binding.add_all(binding.type());
  return with_integer_type(binding, binding.type(),
                           [](auto zero) -> Execute { return uniform<Functor, decltype(zero), kSources>(); });
}

// d and c have twice the width of a and b.
template <template <class> class Wrapper, class Multiply, bool kAdds>
Execute bind_wide(Binding& binding) {
  const Type type = binding.type();
  binding.add_destination(binding.operand(0), 2 * traits(type).bytes);
  binding.add_source(binding.operand(1), type);
  binding.add_source(binding.operand(2), type);
  const bool is_signed = traits(type).kind == Kind::kSigned;
  const bool is_short = traits(type).bytes == 2;
  if (kAdds) {
    const Type wide = is_short ? (is_signed ? Type::kS32 : Type::kU32) : (is_signed ? Type::kS64 : Type::kU64);
    binding.add_source(binding.operand(3), wide);
  }
  if (traits(type).bytes == 8) binding.fail("mul.wide of 64 bits");
  const auto select = [](auto narrow, auto wide) -> Execute {
    using Narrow = decltype(narrow);
    using Wide = decltype(wide);
    if constexpr (kAdds) {
      return &elementwise<Wrapper<Multiply>, Wide, Narrow, Narrow, Wide>;
    } else {
      return &elementwise<Multiply, Wide, Narrow, Narrow>;
    }
  };
  if (is_short) return is_signed ? select(int16_t(), int32_t()) : select(uint16_t(), uint32_t());
  return is_signed ? select(int32_t(), int64_t()) : select(uint32_t(), uint64_t());
}

Execute bind_multiply(Binding& binding) {
  if (binding.has("wide")) return bind_wide<MultiplyAdd, MultiplyWide, false>(binding);
  if (binding.has("hi")) return bind_uniform<MultiplyHigh, 2>(binding);
  return bind_uniform<MultiplyLow, 2>(binding);
}

Execute bind_multiply_add(Binding& binding) {
  if (binding.has("wide")) return bind_wide<MultiplyAdd, MultiplyWide, true>(binding);
  if (binding.has("sat")) binding.fail("mad.sat is not supported");
  if (binding.has("hi")) return bind_uniform<MultiplyAdd<MultiplyHigh>, 3>(binding);
  return bind_uniform<MultiplyAdd<MultiplyLow>, 3>(binding);
}

template <template <class> class Wrapper, unsigned kSources>
void bind_24(Binding& binding) {
  const auto select = [&](auto multiply) {
    using Multiply = decltype(multiply);
    if constexpr (kSources == 2) {
      return bind_uniform<Multiply, 2>(binding);
    } else {
      return bind_uniform<Wrapper<Multiply>, 3>(binding);
    }
  };
  binding.instruction.execute = binding.has("hi") ? select(Multiply24<16>()) : select(Multiply24<0>());
}

// Carry chains: d = a + b + carry, a - b - borrow, a * b + c + carry.
enum class Chain { kAdd, kSubtract, kMultiplyLow, kMultiplyHigh };

template <class T, Chain kChain, bool kUsesCarry, bool kSetsCarry>
void chained(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  using Wide = typename Double<T>::Type;
  T results[kWarpSize];
  LaneMask carries = 0;
  const T* a = warp.lanes<T>(instruction.operands[1]);
  const T* b = warp.lanes<T>(instruction.operands[2]);
  constexpr bool kMultiplies = kChain == Chain::kMultiplyLow || kChain == Chain::kMultiplyHigh;
  const T* c = kMultiplies ? warp.lanes<T>(instruction.operands[3]) : nullptr;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Wide carry = kUsesCarry ? warp.carry >> lane & 1 : 0;
    Wide sum;
    if constexpr (kChain == Chain::kAdd) {
      sum = static_cast<Wide>(a[lane]) + b[lane] + carry;
    } else if constexpr (kChain == Chain::kSubtract) {
      sum = static_cast<Wide>(a[lane]) - b[lane] - carry;
    } else {
      const T product =
          kChain == Chain::kMultiplyLow ? MultiplyLow()(a[lane], b[lane]) : MultiplyHigh()(a[lane], b[lane]);
      sum = static_cast<Wide>(product) + c[lane] + carry;
    }
    results[lane] = static_cast<T>(sum);
    carries |= static_cast<LaneMask>(sum >> (8 * sizeof(T)) & 1) << lane;
  }
  warp.write(instruction.operands[0], results, lanes);
  if (kSetsCarry) warp.carry = (warp.carry & ~lanes) | (carries & lanes);
}

template <Chain kChain>
Execute select_chained(Binding& binding, bool uses_carry, bool sets_carry) {
  binding.add_all(binding.type());
  const auto select = [&](auto zero) -> Execute {
    using T = decltype(zero);
    if (uses_carry) return sets_carry ? &chained<T, kChain, true, true> : &chained<T, kChain, true, false>;
    return &chained<T, kChain, false, true>;
  };
  return traits(binding.type()).bytes == 8 ? select(uint64_t()) : select(uint32_t());
}

template <Chain kLow, Chain kHigh>
void bind_chain(Binding& binding) {
  const bool sets_carry = binding.has("cc");
  binding.instruction.execute = binding.has("hi") ? select_chained<kHigh>(binding, true, sets_carry)
                                                  : select_chained<kLow>(binding, true, sets_carry);
}

// dp4a, dp2a: c plus the dot product of the bytes of b with the bytes or halves of a.
template <class A, class B, unsigned kElements>
struct DotProduct {
  unsigned first;  // element of b
  explicit DotProduct(const Instruction& instruction) : first(instruction.immediate) {}

  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (unsigned i = 0; i < kElements; ++i) {
      const A left = static_cast<A>(a >> (32 / kElements * i));
      const B right = static_cast<B>(b >> (8 * (first + i)));
      c += static_cast<uint32_t>(static_cast<int32_t>(left) * static_cast<int32_t>(right));
    }
    return c;
  }
};

void bind_dot4(Binding& binding) {
  binding.add_all(Type::kB32);
  const bool a = traits(binding.type(0)).kind == Kind::kSigned, b = traits(binding.type(1)).kind == Kind::kSigned;
  binding.instruction.execute = a ? (b ? uniform<DotProduct<int8_t, int8_t, 4>, uint32_t, 3>()
                                       : uniform<DotProduct<int8_t, uint8_t, 4>, uint32_t, 3>())
                                  : (b ? uniform<DotProduct<uint8_t, int8_t, 4>, uint32_t, 3>()
                                       : uniform<DotProduct<uint8_t, uint8_t, 4>, uint32_t, 3>());
}

void bind_dot2(Binding& binding) {
  binding.add_all(Type::kB32);
  binding.instruction.immediate = binding.has("hi") ? 2 : 0;
  const bool a = traits(binding.type(0)).kind == Kind::kSigned, b = traits(binding.type(1)).kind == Kind::kSigned;
  binding.instruction.execute = a ? (b ? uniform<DotProduct<int16_t, int8_t, 2>, uint32_t, 3>()
                                       : uniform<DotProduct<int16_t, uint8_t, 2>, uint32_t, 3>())
                                  : (b ? uniform<DotProduct<uint16_t, int8_t, 2>, uint32_t, 3>()
                                       : uniform<DotProduct<uint16_t, uint8_t, 2>, uint32_t, 3>());
}

void bind_sad(Binding& binding) {
  binding.add_all(binding.type());
  binding.instruction.execute = with_integer_type(binding, binding.type(), [](auto zero) -> Execute {
    using T = decltype(zero);
    return &elementwise<SumOfDifference, Unsigned<T>, T, T, Unsigned<T>>;
  });
}

Execute integer_arithmetic(Binding& binding) {
  const std::string& name = binding.statement.opcode[0];
  const bool carries = binding.has("cc");
  if (name == "add") {
    if (carries) return select_chained<Chain::kAdd>(binding, false, true);
    if (!binding.has("sat")) return bind_uniform<Add, 2>(binding);
    binding.add_all(Type::kS32);
    return uniform<AddSaturated, int32_t, 2>();
  }
  if (name == "sub") {
    if (carries) return select_chained<Chain::kSubtract>(binding, false, true);
    if (!binding.has("sat")) return bind_uniform<Subtract, 2>(binding);
    binding.add_all(Type::kS32);
    return uniform<SubtractSaturated, int32_t, 2>();
  }
  if (name == "mul") return bind_multiply(binding);
  if (name == "mad") {
    if (!carries) return bind_multiply_add(binding);
    return binding.has("hi") ? select_chained<Chain::kMultiplyHigh>(binding, false, true)
                             : select_chained<Chain::kMultiplyLow>(binding, false, true);
  }
  if (name == "div") return bind_uniform<Divide, 2>(binding);
  if (name == "min") return bind_uniform<Minimum, 2>(binding);
  if (name == "max") return bind_uniform<Maximum, 2>(binding);
  if (name == "abs") return bind_uniform<Absolute, 1>(binding);
  if (name == "neg") return bind_uniform<Negate, 1>(binding);
  binding.fail("no such operation on integers");
}

// Names that floating-point arithmetic has, too.
void bind_arithmetic(Binding& binding) {
  if (traits(binding.type()).kind == Kind::kFloat) {
    bind_float_arithmetic(binding);
  } else {
    binding.instruction.execute = integer_arithmetic(binding);
  }
}

}  // namespace

void add_integer_operations(OperationTable& table) {
  for (const char* name : {"add", "sub", "mul", "mad", "div", "min", "max", "abs", "neg"})
    table[name] = bind_arithmetic;
  table["rem"] = [](Binding& binding) { binding.instruction.execute = bind_uniform<Remainder, 2>(binding); };
  table["mul24"] = bind_24<MultiplyAdd, 2>;
  table["mad24"] = bind_24<MultiplyAdd, 3>;
  table["sad"] = bind_sad;
  table["addc"] = bind_chain<Chain::kAdd, Chain::kAdd>;
  table["subc"] = bind_chain<Chain::kSubtract, Chain::kSubtract>;
  table["madc"] = bind_chain<Chain::kMultiplyLow, Chain::kMultiplyHigh>;
  table["dp4a"] = bind_dot4;
  table["dp2a"] = bind_dot2;
}

}  // namespace gpusim
