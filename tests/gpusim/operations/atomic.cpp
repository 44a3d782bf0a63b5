// atom and red: atomic operations on shared and global memory. Lanes take their turn in ascending order.
#include <algorithm>
#include <map>
#include <type_traits>

#include "memory/traffic.h"
#include "operations/addresses.h"
#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

template <class T>
struct Pair {
  T low, high;
};

struct Add {
  template <class T>
  T operator()(T old, T b, T) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(old + b);
    } else {
      return round_to<T>(to_float(old) + to_float(b));
    }
  }
  template <class T>
  Pair<T> operator()(Pair<T> old, Pair<T> b, Pair<T>) const {
    return {(*this)(old.low, b.low, T()), (*this)(old.high, b.high, T())};
  }
};
struct Minimum {
  template <class T>
  T operator()(T old, T b, T) const {
    return std::min(old, b);
  }
};
struct Maximum {
  template <class T>
  T operator()(T old, T b, T) const {
    return std::max(old, b);
  }
};
struct Increment {  // wraps to 0 behind b
  template <class T>
  T operator()(T old, T b, T) const {
    return old >= b ? 0 : old + 1;
  }
};
struct Decrement {  // wraps to b below 0
  template <class T>
  T operator()(T old, T b, T) const {
    return old == 0 || old > b ? b : old - 1;
  }
};
struct And {
  template <class T>
  T operator()(T old, T b, T) const {
    return old & b;
  }
};
struct Or {
  template <class T>
  T operator()(T old, T b, T) const {
    return old | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T old, T b, T) const {
    return old ^ b;
  }
};
struct Exchange {
  template <class T>
  T operator()(T, T b, T) const {
    return b;
  }
};
struct CompareAndSwap {
  template <class T>
  T operator()(T old, T b, T c) const {
    return old == b ? c : old;
  }
};

// Sources: address, b, and c or b again. Without a destination this is `red`.
template <class Functor, class T>
void atomic(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  Addresses addresses = addresses_of(warp, instruction);
  Block& block = warp.block();
  GlobalMemory& global = block.launch().global;
  if (instruction.modifier) global.fence();
  T operands[2][kWarpSize];
  for (unsigned i = 0; i < 2; ++i) {
    std::memcpy(operands[i], warp.lanes<T>(instruction.source(1 + i)), sizeof operands[i]);
  }
  T results[kWarpSize];
  for_each_window(instruction, addresses, lanes, [&](uint64_t window, LaneMask part) {
    for_each_lane(part, [&](unsigned lane) {
      if (window != 0 && window != kSharedWindow) throw Violation{lane, "atomic operation on memory of one thread"};
      std::byte* place = window == 0 ? global.atomic(lane, addresses.of[lane], sizeof(T))
                                     : block.shared().atomic({warp.index(), lane}, addresses.of[lane], sizeof(T));
      std::memcpy(&results[lane], place, sizeof(T));
      const T value = Functor()(results[lane], operands[0][lane], operands[1][lane]);
      std::memcpy(place, &value, sizeof value);
    });
    Tally& tally = block.tally(instruction);
    if (window == 0) {
      count_request(tally.global, addresses.of, part, sizeof(T));
    } else {
      count_request(tally.shared, addresses.of, part, sizeof(T));
    }
  });
  if (instruction.destinations) warp.write(instruction.operands[0], results, lanes);
}

// The types that an operation knows.
const std::map<std::pair<std::string_view, Type>, Execute> kAtomics = {
    {{"add", Type::kU32}, atomic<Add, uint32_t>},
    {{"add", Type::kS32}, atomic<Add, uint32_t>},
    {{"add", Type::kU64}, atomic<Add, uint64_t>},
    {{"add", Type::kF32}, atomic<Add, float>},
    {{"add", Type::kF64}, atomic<Add, double>},
    {{"add", Type::kF16}, atomic<Add, Half>},
    {{"add", Type::kBf16}, atomic<Add, Bfloat16>},
    {{"add", Type::kF16x2}, atomic<Add, Pair<Half>>},
    {{"add", Type::kBf16x2}, atomic<Add, Pair<Bfloat16>>},
    {{"min", Type::kU32}, atomic<Minimum, uint32_t>},
    {{"min", Type::kS32}, atomic<Minimum, int32_t>},
    {{"min", Type::kU64}, atomic<Minimum, uint64_t>},
    {{"min", Type::kS64}, atomic<Minimum, int64_t>},
    {{"max", Type::kU32}, atomic<Maximum, uint32_t>},
    {{"max", Type::kS32}, atomic<Maximum, int32_t>},
    {{"max", Type::kU64}, atomic<Maximum, uint64_t>},
    {{"max", Type::kS64}, atomic<Maximum, int64_t>},
    {{"inc", Type::kU32}, atomic<Increment, uint32_t>},
    {{"dec", Type::kU32}, atomic<Decrement, uint32_t>},
    {{"and", Type::kB32}, atomic<And, uint32_t>},
    {{"and", Type::kB64}, atomic<And, uint64_t>},
    {{"or", Type::kB32}, atomic<Or, uint32_t>},
    {{"or", Type::kB64}, atomic<Or, uint64_t>},
    {{"xor", Type::kB32}, atomic<Xor, uint32_t>},
    {{"xor", Type::kB64}, atomic<Xor, uint64_t>},
    {{"exch", Type::kB32}, atomic<Exchange, uint32_t>},
    {{"exch", Type::kB64}, atomic<Exchange, uint64_t>},
    {{"cas", Type::kB16}, atomic<CompareAndSwap, uint16_t>},
    {{"cas", Type::kB32}, atomic<CompareAndSwap, uint32_t>},
    {{"cas", Type::kB64}, atomic<CompareAndSwap, uint64_t>},
};

void bind_atomic(Binding& binding) {
  Instruction& instruction = binding.instruction;
  const Type type = binding.type();
  const bool returns = binding.statement.opcode[0] == "atom";
  instruction.space = find_space(binding.statement);
  instruction.modifier = binding.has("release") || binding.has("acq_rel");
  for (const auto& [key, execute] : kAtomics) {
    if (key.second == type && binding.has(key.first)) instruction.execute = execute;
  }
  if (!instruction.execute) binding.fail("no such atomic operation");
  const size_t first = returns ? 1 : 0;
  if (returns) binding.add_destination(binding.operand(0), traits(type).bytes);
  binding.add_address(binding.operand(first));
  binding.add_source(binding.operand(first + 1), type);
  binding.add_source(binding.operand(binding.has("cas") ? first + 2 : first + 1), type);
}

}  // namespace

void add_atomics(OperationTable& table) {
  table["atom"] = bind_atomic;
  table["red"] = bind_atomic;
}

}  // namespace gpusim
