// Operations that give each lane a result from that lane's own operands: a functor on scalars becomes an instruction.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "execution/binding.h"
#include "execution/half.h"
#include "execution/warp.h"

namespace gpusim {

// A functor is built once per executed instruction, from the instruction if it wants something of it.
template <class Functor>
Functor make_functor([[maybe_unused]] const Instruction& instruction) {
  if constexpr (std::is_constructible_v<Functor, const Instruction&>) {
    return Functor(instruction);
  } else {
    return Functor();
  }
}

// kPacked elements stand in each lane's register: 2 for f16x2 and bf16x2.
template <class Functor, unsigned kPacked, class Result, class... Sources, size_t... kIndices>
inline void apply(Warp& warp, const Instruction& instruction, LaneMask lanes, std::index_sequence<kIndices...>) {
  const Functor functor = make_functor<Functor>(instruction);
  constexpr unsigned kElements = kWarpSize * kPacked;
  Result results[kElements];
  const std::tuple<const Sources*...> sources(warp.lanes<Sources>(instruction.operands[1 + kIndices])...);
  for (unsigned i = 0; i < kElements; ++i) results[i] = functor(std::get<kIndices>(sources)[i]...);
  Result* to = warp.lanes<Result>(instruction.operands[0]);
  if (lanes == kAllLanes) {
    std::memcpy(to, results, sizeof results);
  } else {
    for_each_lane(lanes, [&](unsigned lane) {
      std::memcpy(to + lane * kPacked, results + lane * kPacked, kPacked * sizeof(Result));
    });
  }
}

template <class Functor, class Result, class... Sources>
void elementwise(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  apply<Functor, 1, Result, Sources...>(warp, instruction, lanes, std::index_sequence_for<Sources...>());
}

template <class Functor, class Result, class... Sources>
void elementwise_packed(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  apply<Functor, 2, Result, Sources...>(warp, instruction, lanes, std::index_sequence_for<Sources...>());
}

// elementwise on one type T, with as many sources as the count says.
template <class Functor, class T, unsigned kSources>
constexpr Execute uniform() {
  if constexpr (kSources == 1) {
    return &elementwise<Functor, T, T>;
  } else if constexpr (kSources == 2) {
    return &elementwise<Functor, T, T, T>;
  } else {
    return &elementwise<Functor, T, T, T, T>;
  }
}
template <class Functor, class T, unsigned kSources>
constexpr Execute uniform_packed() {
  if constexpr (kSources == 1) {
    return &elementwise_packed<Functor, T, T>;
  } else if constexpr (kSources == 2) {
    return &elementwise_packed<Functor, T, T, T>;
  } else {
    return &elementwise_packed<Functor, T, T, T, T>;
  }
}

// A mask from one byte per lane, each 0 or 1.
inline LaneMask pack_mask(const uint8_t (&flags)[kWarpSize]) {
  LaneMask mask = 0;
  for (unsigned group = 0; group < 4; ++group) {
    uint64_t eight;
    std::memcpy(&eight, flags + 8 * group, sizeof eight);
    // The product moves bit 0 of byte i to bit 56 + i.
    mask |= static_cast<LaneMask>(eight * 0x0102040810204080ull >> 56) << (8 * group);
  }
  return mask;
}

// One byte per lane, 0 or 1, from a mask.
inline void unpack_mask(LaneMask mask, uint8_t (&flags)[kWarpSize]) {
  for (unsigned lane = 0; lane < kWarpSize; ++lane) flags[lane] = mask >> lane & 1;
}

// Calls function(T()) with the C++ type of a PTX type; bits count as unsigned.
template <class Function>
auto with_integer_type(const Binding& binding, Type type, Function function) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return function(uint16_t());
    case Type::kS16:
      return function(int16_t());
    case Type::kB32:
    case Type::kU32:
      return function(uint32_t());
    case Type::kS32:
      return function(int32_t());
    case Type::kB64:
    case Type::kU64:
      return function(uint64_t());
    case Type::kS64:
      return function(int64_t());
    default:
      binding.fail("not for this type");
  }
}

template <class Function>
auto with_unsigned_type(const Binding& binding, unsigned bytes, Function function) {
  switch (bytes) {
    case 2:
      return function(uint16_t());
    case 4:
      return function(uint32_t());
    case 8:
      return function(uint64_t());
    default:
      binding.fail("not for registers of this size");
  }
}

}  // namespace gpusim
