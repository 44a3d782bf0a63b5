// Floating-point arithmetic in f16, bf16, f32 and f64, packed pairs included. Every result is rounded once, to nearest
// even; approximate instructions (ex2, lg2, sin, rcp.approx, div.full, ...) give the correctly rounded or the C
// library's result, which is better than a GPU's.
#include <cmath>
#include <limits>

#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

// Sign and magnitude of any of the formats.
template <class T>
struct Bits;
template <>
struct Bits<Half> {
  using Type = uint16_t;
};
template <>
struct Bits<Bfloat16> {
  using Type = uint16_t;
};
template <>
struct Bits<float> {
  using Type = uint32_t;
};
template <>
struct Bits<double> {
  using Type = uint64_t;
};
template <class T>
using BitsOf = typename Bits<T>::Type;
template <class T>
constexpr BitsOf<T> kSignBit = static_cast<BitsOf<T>>(BitsOf<T>(1) << (8 * sizeof(T) - 1));

template <class T>
bool is_nan(T value) {
  const auto wide = to_float(value);
  return wide != wide;
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return round_to<T>(to_float(a) + to_float(b));
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return round_to<T>(to_float(a) - to_float(b));
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    return round_to<T>(to_float(a) * to_float(b));
  }
  // Small products are no longer exact in float.
  Bfloat16 operator()(Bfloat16 a, Bfloat16 b) const {
    return round_to<Bfloat16>(static_cast<double>(to_float(a)) * static_cast<double>(to_float(b)));
  }
};
struct MultiplyAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    return fused_multiply_add(a, b, c);
  }
};
struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    return round_to<T>(to_float(a) / to_float(b));
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return bit_cast<T>(static_cast<BitsOf<T>>(bit_cast<BitsOf<T>>(a) & ~kSignBit<T>));
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return bit_cast<T>(static_cast<BitsOf<T>>(bit_cast<BitsOf<T>>(a) ^ kSignBit<T>));
  }
};
struct CopySign {  // of a onto b
  template <class T>
  T operator()(T a, T b) const {
    return bit_cast<T>(
        static_cast<BitsOf<T>>((bit_cast<BitsOf<T>>(a) & kSignBit<T>) | (bit_cast<BitsOf<T>>(b) & ~kSignBit<T>)));
  }
};

template <class T>
T canonical_nan();
template <>
Half canonical_nan() {
  return {kNan16};
}
template <>
Bfloat16 canonical_nan() {
  return {kNan16};
}
template <>
float canonical_nan() {
  return bit_cast<float>(0x7fffffff);
}
template <>
double canonical_nan() {
  return std::numeric_limits<double>::quiet_NaN();
}

// -0 is less than +0. A NaN loses against a number, or wins where kPropagatesNan.
template <bool kMaximum, bool kPropagatesNan>
struct Extremum {
  template <class T>
  T operator()(T a, T b) const {
    const auto x = to_float(a), y = to_float(b);
    const bool a_is_less = x < y || (x == y && (bit_cast<BitsOf<T>>(a) & kSignBit<T>) != 0);
    const T extremum = a_is_less != kMaximum ? a : b;
    const bool a_is_nan = x != x, b_is_nan = y != y;
    if constexpr (kPropagatesNan) {
      return a_is_nan || b_is_nan ? canonical_nan<T>() : extremum;
    } else {
      return a_is_nan ? (b_is_nan ? canonical_nan<T>() : b) : b_is_nan ? a : extremum;
    }
  }
};

template <class Function>
struct Unary {
  template <class T>
  T operator()(T a) const {
    return round_to<T>(Function()(to_float(a)));
  }
};
struct Reciprocal {
  template <class T>
  T operator()(T a) const {
    return T(1) / a;
  }
};
struct SquareRoot {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct ReciprocalSquareRoot {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(1.0 / std::sqrt(static_cast<double>(a)));
  }
};
struct Sine {
  template <class T>
  T operator()(T a) const {
    return std::sin(a);
  }
};
struct Cosine {
  template <class T>
  T operator()(T a) const {
    return std::cos(a);
  }
};
struct Exponential2 {
  template <class T>
  T operator()(T a) const {
    return std::exp2(a);
  }
};
struct Logarithm2 {
  template <class T>
  T operator()(T a) const {
    return std::log2(a);
  }
};
struct HyperbolicTangent {
  template <class T>
  T operator()(T a) const {
    return std::tanh(a);
  }
};

// .ftz: subnormal operands and results become zero. .sat: results into 0 .. 1, NaN to 0. .relu: negative ones to 0.
enum Adjustment : uint32_t { kFlush = 1, kSaturate = 2, kRelu = 4 };

template <class Functor>
struct Adjusted {
  bool flushes, saturates, clips;
  explicit Adjusted(const Instruction& instruction)
      : flushes(instruction.modifier & kFlush),
        saturates(instruction.modifier & kSaturate),
        clips(instruction.modifier & kRelu) {}

  template <class T, class... More>
  T operator()(T a, More... more) const {
    T result = Functor()(flush(a), flush(more)...);
    result = flush(result);
    const auto wide = to_float(result);
    if (saturates) result = round_to<T>(wide > 0 ? (wide < 1 ? wide : decltype(wide)(1)) : decltype(wide)(0));
    if (clips) result = is_nan(result) ? canonical_nan<T>() : wide > 0 ? result : bit_cast<T>(BitsOf<T>(0));
    return result;
  }
  template <class T>
  T flush(T value) const {
    constexpr BitsOf<T> kExponent = std::is_same_v<T, Half>       ? 0x7c00
                                    : std::is_same_v<T, Bfloat16> ? 0x7f80
                                    : std::is_same_v<T, float>    ? 0x7f800000
                                                                  : BitsOf<T>(0x7ff0000000000000);
    const BitsOf<T> all = bit_cast<BitsOf<T>>(value);
    return flushes && !(all & kExponent) ? bit_cast<T>(static_cast<BitsOf<T>>(all & kSignBit<T>)) : value;
  }
};

template <class Functor, unsigned kSources>
Execute select(Binding& binding, Type type) {
  switch (type) {
    case Type::kF16:
      return uniform<Functor, Half, kSources>();
    case Type::kBf16:
      return uniform<Functor, Bfloat16, kSources>();
    case Type::kF16x2:
      return uniform_packed<Functor, Half, kSources>();
    case Type::kBf16x2:
      return uniform_packed<Functor, Bfloat16, kSources>();
    case Type::kF32:
      return uniform<Functor, float, kSources>();
    case Type::kF64:
      return uniform<Functor, double, kSources>();
    default:
      binding.fail("not for this type");
  }
}

InstructionClass class_of(Type type) {
  if (type == Type::kF32) return InstructionClass::kFloat;
  return type == Type::kF64 ? InstructionClass::kDouble : InstructionClass::kHalf;
}

template <class Functor, unsigned kSources>
void bind(Binding& binding) {
  for (const char* mode : {"rz", "rm", "rp", "rna"}) {
    if (binding.has(mode)) binding.fail(std::string("rounding mode .") + mode + " is not supported here");
  }
  const Type type = binding.type();
  Instruction& instruction = binding.instruction;
  instruction.instruction_class = class_of(type);
  binding.add_all(type);
  if (binding.has("ftz")) instruction.modifier |= kFlush;
  if (binding.has("sat")) instruction.modifier |= kSaturate;
  if (binding.has("relu")) instruction.modifier |= kRelu;
  instruction.execute = instruction.modifier ? select<Adjusted<Functor>, kSources>(binding, type)
                                             : select<Functor, kSources>(binding, type);
}

template <class Functor, unsigned kSources = 1>
void bind_special(Binding& binding) {
  bind<Functor, kSources>(binding);
  binding.instruction.instruction_class = InstructionClass::kSpecialFunction;
}

template <bool kMaximum>
void bind_extremum(Binding& binding) {
  if (binding.has("xorsign")) binding.fail(".xorsign.abs is not supported");
  if (binding.has("NaN")) return bind<Extremum<kMaximum, true>, 2>(binding);
  bind<Extremum<kMaximum, false>, 2>(binding);
}

}  // namespace

void bind_float_arithmetic(Binding& binding) {
  const std::string& name = binding.statement.opcode[0];
  if (name == "add") return bind<Add, 2>(binding);
  if (name == "sub") return bind<Subtract, 2>(binding);
  if (name == "mul") return bind<Multiply, 2>(binding);
  if (name == "mad") return bind<MultiplyAdd, 3>(binding);
  if (name == "div") return bind_special<Divide, 2>(binding);
  if (name == "min") return bind_extremum<false>(binding);
  if (name == "max") return bind_extremum<true>(binding);
  if (name == "abs") return bind<Absolute, 1>(binding);
  if (name == "neg") return bind<Negate, 1>(binding);
  binding.fail("no such operation on floating-point numbers");
}

void add_float_operations(OperationTable& table) {
  table["fma"] = bind<MultiplyAdd, 3>;
  table["copysign"] = bind<CopySign, 2>;
  table["rcp"] = bind_special<Unary<Reciprocal>>;
  table["sqrt"] = bind_special<Unary<SquareRoot>>;
  table["rsqrt"] = bind_special<Unary<ReciprocalSquareRoot>>;
  table["sin"] = bind_special<Unary<Sine>>;
  table["cos"] = bind_special<Unary<Cosine>>;
  table["ex2"] = bind_special<Unary<Exponential2>>;
  table["lg2"] = bind_special<Unary<Logarithm2>>;
  table["tanh"] = bind_special<Unary<HyperbolicTangent>>;
}

}  // namespace gpusim
