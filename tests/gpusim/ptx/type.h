// The types of PTX instructions and registers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gpusim {

enum class Type : uint8_t {
  kPredicate,
  kB8,
  kB16,
  kB32,
  kB64,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kTf32,
  kF32,
  kF64,
};

enum class Kind : uint8_t { kPredicate, kBits, kUnsigned, kSigned, kFloat };

struct TypeTraits {
  std::string_view name;
  Type type;
  Kind kind;
  unsigned bytes;
};

constexpr TypeTraits kTypes[] = {
    {"pred", Type::kPredicate, Kind::kPredicate, 0},
    {"b8", Type::kB8, Kind::kBits, 1},
    {"b16", Type::kB16, Kind::kBits, 2},
    {"b32", Type::kB32, Kind::kBits, 4},
    {"b64", Type::kB64, Kind::kBits, 8},
    {"u8", Type::kU8, Kind::kUnsigned, 1},
    {"u16", Type::kU16, Kind::kUnsigned, 2},
    {"u32", Type::kU32, Kind::kUnsigned, 4},
    {"u64", Type::kU64, Kind::kUnsigned, 8},
    {"s8", Type::kS8, Kind::kSigned, 1},
    {"s16", Type::kS16, Kind::kSigned, 2},
    {"s32", Type::kS32, Kind::kSigned, 4},
    {"s64", Type::kS64, Kind::kSigned, 8},
    {"f16", Type::kF16, Kind::kFloat, 2},
    {"f16x2", Type::kF16x2, Kind::kFloat, 4},
    {"bf16", Type::kBf16, Kind::kFloat, 2},
    {"bf16x2", Type::kBf16x2, Kind::kFloat, 4},
    {"tf32", Type::kTf32, Kind::kFloat, 4},
    {"f32", Type::kF32, Kind::kFloat, 4},
    {"f64", Type::kF64, Kind::kFloat, 8},
};

constexpr const TypeTraits& traits(Type type) { return kTypes[static_cast<int>(type)]; }

// The type of this name without its dot, or none.
constexpr std::optional<Type> find_type(std::string_view name) {
  for (const TypeTraits& entry : kTypes) {
    if (entry.name == name) return entry.type;
  }
  return std::nullopt;
}

}  // namespace gpusim
