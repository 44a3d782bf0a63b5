// cvt: between all integer and floating-point types, in every rounding mode.
#include <cmath>
#include <limits>

#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

enum class Rounding : uint32_t {
  kNearestEven,
  kTowardsZero,
  kDown,
  kUp,
  kIntegerNearestEven,
  kIntegerTowardsZero,
  kIntegerDown,
  kIntegerUp,
  kNearestAway,
};
const std::vector<std::string_view> kRoundingNames = {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"};

constexpr uint32_t kSaturates = 1, kFlushes = 2, kClips = 4;  // flags

// How a type is read and written, whatever the size of the register it stands in.
struct Format {
  Type type;
  unsigned register_bytes;
};

// A value on its way: exact for every type.
using Wide = long double;
static_assert(std::numeric_limits<Wide>::digits >= 64, "a long double must hold every 64-bit integer");

Wide read(const std::byte* slot, const Format& format, unsigned lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, slot + lane * format.register_bytes, format.register_bytes);
  switch (format.type) {
    case Type::kS8:
      return static_cast<int8_t>(bits);
    case Type::kS16:
      return static_cast<int16_t>(bits);
    case Type::kS32:
      return static_cast<int32_t>(bits);
    case Type::kS64:
      return static_cast<int64_t>(bits);
    case Type::kF16:
      return to_float(Half{static_cast<uint16_t>(bits)});
    case Type::kBf16:
      return to_float(Bfloat16{static_cast<uint16_t>(bits)});
    case Type::kF32:
      return bit_cast<float>(static_cast<uint32_t>(bits));
    case Type::kF64:
      return bit_cast<double>(bits);
    case Type::kU8:
      return static_cast<uint8_t>(bits);
    case Type::kU16:
      return static_cast<uint16_t>(bits);
    case Type::kU32:
      return static_cast<uint32_t>(bits);
    default:
      return bits;
  }
}

// The integer that a rounding mode for integers makes of a value.
Wide round_to_integer(Wide value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kIntegerNearestEven:
      return std::nearbyint(value);
    case Rounding::kIntegerDown:
      return std::floor(value);
    case Rounding::kIntegerUp:
      return std::ceil(value);
    default:
      return std::trunc(value);
  }
}

// The encodings of a floating-point format of one sign are in the order of their magnitudes, so that the neighbour of a
// number is one encoding away.
template <class T, class Bits, class Nearest>
uint64_t encode_float(Wide value, Rounding rounding, Nearest nearest) {
  const T rounded = nearest(value);
  if (value != value) return bit_cast<Bits>(rounded);
  const Wide got = to_float(rounded);
  Bits bits = bit_cast<Bits>(rounded);
  constexpr Bits kSign = static_cast<Bits>(Bits(1) << (8 * sizeof(Bits) - 1));
  const bool too_small = got<value, too_large = got> value;
  const bool smaller = too_large && (rounding == Rounding::kDown || (rounding == Rounding::kTowardsZero && value > 0));
  const bool larger = too_small && (rounding == Rounding::kUp || (rounding == Rounding::kTowardsZero && value < 0));
  if (smaller) bits = static_cast<Bits>(bits == 0 ? kSign | 1 : bits & kSign ? bits + 1 : bits - 1);
  if (larger) bits = static_cast<Bits>(bits == kSign ? 1 : bits & kSign ? bits - 1 : bits + 1);
  return bits;
}

// To double with an odd last bit if inexact, so that rounding it again to a short format is a single rounding.
double to_odd_double(Wide value) {
  const double nearest = static_cast<double>(value);
  if (static_cast<Wide>(nearest) == value || value != value) return nearest;
  uint64_t bits = bit_cast<uint64_t>(nearest);
  if (std::fabs(static_cast<Wide>(nearest)) > std::fabs(value)) --bits;
  return bit_cast<double>(bits | 1);
}

template <class T>
uint64_t encode_integer(Wide value, bool is_from_double) {
  using Limits = std::numeric_limits<T>;
  if (value != value) {
    const bool high_bit = is_from_double || sizeof(T) == 8;
    return high_bit ? 1ull << (8 * sizeof(T) - 1) : 0;
  }
  if (value <= static_cast<Wide>(Limits::min())) return static_cast<uint64_t>(Limits::min());
  if (value >= static_cast<Wide>(Limits::max())) return static_cast<uint64_t>(Limits::max());
  return static_cast<uint64_t>(static_cast<T>(value));
}

uint64_t encode(Wide value, Type type, Rounding rounding, bool is_from_double) {
  switch (type) {
    case Type::kU8:
      return encode_integer<uint8_t>(value, is_from_double);
    case Type::kU16:
      return encode_integer<uint16_t>(value, is_from_double);
    case Type::kU32:
      return encode_integer<uint32_t>(value, is_from_double);
    case Type::kU64:
      return encode_integer<uint64_t>(value, is_from_double);
    case Type::kS8:
      return encode_integer<int8_t>(value, is_from_double);
    case Type::kS16:
      return encode_integer<int16_t>(value, is_from_double);
    case Type::kS32:
      return encode_integer<int32_t>(value, is_from_double);
    case Type::kS64:
      return encode_integer<int64_t>(value, is_from_double);
    case Type::kF16:
      return encode_float<Half, uint16_t>(value, rounding, [](Wide v) { return round_to<Half>(to_odd_double(v)); });
    case Type::kBf16:
      return encode_float<Bfloat16, uint16_t>(value, rounding,
                                              [](Wide v) { return round_to<Bfloat16>(to_odd_double(v)); });
    case Type::kF32:
      return encode_float<float, uint32_t>(value, rounding, [](Wide v) { return static_cast<float>(v); });
    default:
      return encode_float<double, uint64_t>(value, rounding, [](Wide v) { return static_cast<double>(v); });
  }
}

// An integer without saturation keeps its low bits.
uint64_t truncate(Wide value, Type to) {
  const uint64_t bits = value < 0 ? static_cast<uint64_t>(static_cast<int64_t>(value)) : static_cast<uint64_t>(value);
  switch (to) {
    case Type::kU8:
      return static_cast<uint8_t>(bits);
    case Type::kU16:
      return static_cast<uint16_t>(bits);
    case Type::kU32:
      return static_cast<uint32_t>(bits);
    case Type::kS8:
      return static_cast<uint64_t>(static_cast<int8_t>(bits));
    case Type::kS16:
      return static_cast<uint64_t>(static_cast<int16_t>(bits));
    case Type::kS32:
      return static_cast<uint64_t>(static_cast<int32_t>(bits));
    default:
      return bits;
  }
}

// A conversion of any kind. The formats stand in `elements` (from) and `element_bytes` (to) with their register sizes
// in `offset`; see bind_general.
struct General {
  Format from, to;
  Rounding rounding;
  uint32_t flags;

  explicit General(const Instruction& instruction)
      : from{static_cast<Type>(instruction.elements), static_cast<unsigned>(instruction.offset & 0xff)},
        to{static_cast<Type>(instruction.element_bytes), static_cast<unsigned>(instruction.offset >> 8)},
        rounding(static_cast<Rounding>(instruction.immediate)),
        flags(instruction.modifier) {}

  uint64_t operator()(const std::byte* slot, unsigned lane) const {
    Wide value = read(slot, from, lane);
    const bool from_integer = traits(from.type).kind != Kind::kFloat;
    const bool to_integer = traits(to.type).kind != Kind::kFloat;
    if (from_integer && to_integer && !(flags & kSaturates)) return truncate(value, to.type);
    if (flags & kFlushes && from.type == Type::kF32 && std::fabs(value) < 0x1p-126L)
      value = std::copysign(Wide(0), value);
    if (!from_integer && (to_integer || rounding >= Rounding::kIntegerNearestEven)) {
      value = round_to_integer(value, rounding);
    }
    if (!to_integer && flags & kSaturates) value = value > 0 ? (value < 1 ? value : Wide(1)) : Wide(0);
    if (!to_integer && flags & kClips && value < 0) value = 0;
    return encode(value, to.type, rounding, from.type == Type::kF64);
  }
};

void convert_general(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const General general(instruction);
  const std::byte* from = warp.slot_bytes(instruction.operands[1]);
  std::byte* to = warp.slot_bytes(instruction.operands[0]);
  uint64_t results[kWarpSize];
  for_each_lane(lanes, [&](unsigned lane) { results[lane] = general(from, lane); });
  const unsigned bytes = general.to.register_bytes;
  for_each_lane(lanes, [&](unsigned lane) { std::memcpy(to + lane * bytes, &results[lane], bytes); });
}

Type register_type(unsigned bytes) { return bytes == 2 ? Type::kB16 : bytes == 4 ? Type::kB32 : Type::kB64; }

// The formats that `cvt` knows, as plain integers where the opcode says bits.
Type plain(Type type) {
  switch (type) {
    case Type::kB8:
      return Type::kU8;
    case Type::kB16:
      return Type::kU16;
    case Type::kB32:
      return Type::kU32;
    case Type::kB64:
      return Type::kU64;
    default:
      return type;
  }
}

void bind_general(Binding& binding) {
  Instruction& instruction = binding.instruction;
  const Type to = plain(binding.type(0)), from = plain(binding.type(1));
  unsigned to_bytes = binding.register_bytes(binding.operand(0));
  unsigned from_bytes = binding.register_bytes(binding.operand(1));
  if (!from_bytes) from_bytes = std::max(2u, traits(from).bytes);
  if (to_bytes < traits(to).bytes || from_bytes < traits(from).bytes) binding.fail("a register is too small");
  binding.add_destination(binding.operand(0), to_bytes);
  binding.add_source(binding.operand(1), register_type(from_bytes));
  instruction.elements = static_cast<uint8_t>(from);
  instruction.element_bytes = static_cast<uint8_t>(to);
  instruction.offset = from_bytes | to_bytes << 8;
  instruction.execute = convert_general;
}

// The frequent conversions, fast: to nearest even, without modifiers, between registers of just the right size.
template <class To>
struct RoundTo {
  template <class From>
  To operator()(From value) const {
    return round_to<To>(to_float(value));
  }
};
template <class To>
struct CastTo {
  template <class From>
  To operator()(From value) const {
    return static_cast<To>(value);
  }
};

// A short integer out of a wider register.
template <class To, class Short>
struct Extend {
  template <class From>
  To operator()(From value) const {
    return static_cast<To>(static_cast<Short>(value));
  }
};

struct FastConversion {
  Type to, from;
  unsigned to_bytes, from_bytes;  // of the registers
  Execute execute;
};
const FastConversion kFastConversions[] = {
    {Type::kF32, Type::kF16, 4, 2, &elementwise<RoundTo<float>, float, Half>},
    {Type::kF32, Type::kBf16, 4, 2, &elementwise<RoundTo<float>, float, Bfloat16>},
    {Type::kF16, Type::kF32, 2, 4, &elementwise<RoundTo<Half>, Half, float>},
    {Type::kBf16, Type::kF32, 2, 4, &elementwise<RoundTo<Bfloat16>, Bfloat16, float>},
    {Type::kF32, Type::kS32, 4, 4, &elementwise<CastTo<float>, float, int32_t>},
    {Type::kF32, Type::kU32, 4, 4, &elementwise<CastTo<float>, float, uint32_t>},
    {Type::kF32, Type::kU16, 4, 2, &elementwise<CastTo<float>, float, uint16_t>},
    {Type::kF32, Type::kS16, 4, 2, &elementwise<CastTo<float>, float, int16_t>},
    {Type::kF64, Type::kF32, 8, 4, &elementwise<CastTo<double>, double, float>},
    {Type::kU64, Type::kU32, 8, 4, &elementwise<CastTo<uint64_t>, uint64_t, uint32_t>},
    {Type::kS64, Type::kS32, 8, 4, &elementwise<CastTo<int64_t>, int64_t, int32_t>},
    {Type::kU32, Type::kU64, 4, 8, &elementwise<CastTo<uint32_t>, uint32_t, uint64_t>},
    {Type::kU32, Type::kU16, 4, 2, &elementwise<CastTo<uint32_t>, uint32_t, uint16_t>},
    {Type::kS32, Type::kS16, 4, 2, &elementwise<CastTo<int32_t>, int32_t, int16_t>},
    {Type::kU16, Type::kU32, 2, 4, &elementwise<CastTo<uint16_t>, uint16_t, uint32_t>},
    {Type::kU16, Type::kU8, 2, 2, &elementwise<Extend<uint16_t, uint8_t>, uint16_t, uint16_t>},
    {Type::kS16, Type::kS8, 2, 2, &elementwise<Extend<uint16_t, int8_t>, uint16_t, uint16_t>},
    {Type::kU32, Type::kU8, 4, 2, &elementwise<Extend<uint32_t, uint8_t>, uint32_t, uint16_t>},
    {Type::kS32, Type::kS8, 4, 2, &elementwise<Extend<uint32_t, int8_t>, uint32_t, uint16_t>},
    {Type::kU32, Type::kU8, 4, 4, &elementwise<Extend<uint32_t, uint8_t>, uint32_t, uint32_t>},
    {Type::kS32, Type::kS8, 4, 4, &elementwise<Extend<uint32_t, int8_t>, uint32_t, uint32_t>},
};

bool bind_fast(Binding& binding) {
  if (binding.instruction.immediate != static_cast<uint32_t>(Rounding::kNearestEven)) return false;
  if (binding.instruction.modifier) return false;
  const unsigned to_bytes = binding.register_bytes(binding.operand(0));
  const unsigned from_bytes = binding.register_bytes(binding.operand(1));
  for (const FastConversion& fast : kFastConversions) {
    if (fast.to != binding.type(0) || fast.from != binding.type(1)) continue;
    if (fast.to_bytes != to_bytes || fast.from_bytes != from_bytes) continue;
    binding.add_destination(binding.operand(0), to_bytes);
    binding.add_source(binding.operand(1), register_type(from_bytes));
    binding.instruction.execute = fast.execute;
    return true;
  }
  return false;
}

// cvt.rn.f16x2.f32 d, a, b: a goes to the high half.
template <class T>
void convert_pair(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const float* high = warp.lanes<float>(instruction.operands[1]);
  const float* low = warp.lanes<float>(instruction.operands[2]);
  const auto rounding = static_cast<Rounding>(instruction.immediate);
  const bool clips = instruction.modifier & kClips;
  uint32_t results[kWarpSize];
  const auto half = [&](float value) -> uint32_t {
    if (clips && value <= 0) value = 0;
    if (rounding == Rounding::kNearestEven) return round_to<T>(value).bits;
    return static_cast<uint32_t>(
        encode_float<T, uint16_t>(value, rounding, [](Wide v) { return round_to<T>(static_cast<double>(v)); }));
  };
  for (unsigned lane = 0; lane < kWarpSize; ++lane) results[lane] = half(high[lane]) << 16 | half(low[lane]);
  warp.write(instruction.operands[0], results, lanes);
}

// cvt.rna.tf32.f32: to 10 bits of mantissa, ties away from zero.
struct RoundToTf32 {
  uint32_t operator()(uint32_t bits) const {
    return (bits & 0x7fffffff) >= 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
  }
};

void bind_conversion(Binding& binding) {
  Instruction& instruction = binding.instruction;
  if (binding.type_count() != 2) binding.fail("cvt between these types is not supported");
  if (binding.has("satfinite")) binding.fail(".satfinite is not supported");
  const Type to = binding.type(0), from = binding.type(1);
  instruction.immediate = static_cast<uint32_t>(binding.choose(kRoundingNames, 0));
  if (binding.has("sat")) instruction.modifier |= kSaturates;
  if (binding.has("ftz")) instruction.modifier |= kFlushes;
  if (binding.has("relu")) instruction.modifier |= kClips;
  if (to == Type::kTf32) {
    binding.add_all(Type::kB32);
    instruction.execute = &elementwise<RoundToTf32, uint32_t, uint32_t>;
  } else if (to == Type::kF16x2 || to == Type::kBf16x2) {
    if (from != Type::kF32) binding.fail("only from .f32");
    binding.add_all(Type::kB32);
    instruction.execute = to == Type::kF16x2 ? convert_pair<Half> : convert_pair<Bfloat16>;
  } else if (!bind_fast(binding)) {
    bind_general(binding);
  }
}

}  // namespace

void add_conversions(OperationTable& table) { table["cvt"] = bind_conversion; }

}  // namespace gpusim
