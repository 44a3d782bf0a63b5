// Operations between the lanes of a warp: shfl, vote, match, redux, activemask, bar.warp.sync.
#include <algorithm>

#include "execution/block.h"
#include "operations/elementwise.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

enum class Shuffle : uint32_t { kUp, kDown, kButterfly, kIndex };
const std::vector<std::string_view> kShuffleNames = {"up", "down", "bfly", "idx"};

// The operand with the member mask makes a collective of an instruction.
void add_members(Binding& binding, const Operand& operand) {
  binding.instruction.flow = Flow::kCollective;
  binding.instruction.mask_operand = binding.instruction.operand_count;
  binding.add_source(operand, Type::kB32);
}

// Sources: a, b (lane, distance or mask), c (segment mask << 8 | clamp), members. Results: d [, source in range].
void shuffle(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const uint32_t* a = warp.lanes<uint32_t>(instruction.source(0));
  const uint32_t* b = warp.lanes<uint32_t>(instruction.source(1));
  const uint32_t* c = warp.lanes<uint32_t>(instruction.source(2));
  const auto kind = static_cast<Shuffle>(instruction.immediate);
  uint32_t results[kWarpSize];
  LaneMask in_range = 0;
  for_each_lane(lanes, [&](unsigned lane) {
    const int clamp = c[lane] & 31, segment = c[lane] >> 8 & 31, distance = b[lane] & 31, own = static_cast<int>(lane);
    const int last = (own & segment) | (clamp & ~segment), first = own & segment;
    int source = own;
    bool valid = false;
    switch (kind) {
      case Shuffle::kUp:
        source = own - distance;
        valid = source >= last;
        break;
      case Shuffle::kDown:
        source = own + distance;
        valid = source <= last;
        break;
      case Shuffle::kButterfly:
        source = own ^ distance;
        valid = source <= last;
        break;
      case Shuffle::kIndex:
        source = first | (distance & ~segment);
        valid = source <= last;
        break;
    }
    if (!valid) source = own;
    if (!(lanes >> source & 1)) {
      throw Violation{lane, "shfl reads from lane " + std::to_string(source) + ", which does not take part"};
    }
    in_range |= static_cast<LaneMask>(valid) << lane;
    results[lane] = a[source];
  });
  warp.write(instruction.operands[0], results, lanes);
  if (instruction.destinations == 2) warp.write_predicate(instruction.operands[1], in_range, lanes);
}

void bind_shuffle(Binding& binding) {
  if (!binding.has("sync")) binding.fail("only shfl.sync");
  const Operand& destination = binding.operand(0);
  if (destination.kind == Operand::Kind::kPair) {
    binding.add_destination(destination.parts[0], 4);
    binding.add_destination(destination.parts[1], 0);
  } else {
    binding.add_destination(destination, 4);
  }
  for (size_t i = 1; i <= 3; ++i) binding.add_source(binding.operand(i), Type::kB32);
  add_members(binding, binding.operand(4));
  binding.instruction.immediate = static_cast<uint32_t>(binding.choose(kShuffleNames, 0));
  binding.instruction.execute = shuffle;
}

enum class Vote : uint32_t { kAll, kAny, kUniform, kBallot };
const std::vector<std::string_view> kVoteNames = {"all", "any", "uni", "ballot"};

void vote(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const LaneMask votes = (warp.predicate(instruction.source(0)) ^ (instruction.modifier ? kAllLanes : 0)) & lanes;
  const auto kind = static_cast<Vote>(instruction.immediate);
  if (kind == Vote::kBallot) {
    uint32_t results[kWarpSize];
    std::fill_n(results, kWarpSize, votes);
    warp.write(instruction.operands[0], results, lanes);
    return;
  }
  const bool holds = kind == Vote::kAll   ? votes == lanes
                     : kind == Vote::kAny ? votes != 0
                                          : votes == 0 || votes == lanes;
  warp.write_predicate(instruction.operands[0], holds ? kAllLanes : 0, lanes);
}

void bind_vote(Binding& binding) {
  if (!binding.has("sync")) binding.fail("only vote.sync");
  const size_t kind = binding.choose(kVoteNames, 0);
  binding.add_destination(binding.operand(0), kind == static_cast<size_t>(Vote::kBallot) ? 4 : 0);
  binding.add_predicate(binding.operand(1));
  add_members(binding, binding.operand(2));
  binding.instruction.immediate = static_cast<uint32_t>(kind);
  binding.instruction.execute = vote;
}

// match.any: the lanes with the same value; match.all: the lanes if all have it, else none.
template <class T, bool kAll>
void match(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const T* values = warp.lanes<T>(instruction.source(0));
  uint32_t results[kWarpSize] = {};
  LaneMask matched = 0;
  for_each_lane(lanes, [&](unsigned lane) {
    for_each_lane(lanes, [&](unsigned other) { results[lane] |= values[lane] == values[other] ? 1u << other : 0; });
    if (results[lane] == lanes) matched |= 1u << lane;
    if (kAll && results[lane] != lanes) results[lane] = 0;
  });
  warp.write(instruction.operands[0], results, lanes);
  if (instruction.destinations == 2) warp.write_predicate(instruction.operands[1], matched, lanes);
}

void bind_match(Binding& binding) {
  const Operand& destination = binding.operand(0);
  if (destination.kind == Operand::Kind::kPair) {
    binding.add_destination(destination.parts[0], 4);
    binding.add_destination(destination.parts[1], 0);
  } else {
    binding.add_destination(destination, 4);
  }
  binding.add_source(binding.operand(1), binding.type());
  add_members(binding, binding.operand(2));
  const bool wide = traits(binding.type()).bytes == 8;
  binding.instruction.execute = binding.has("all") ? (wide ? match<uint64_t, true> : match<uint32_t, true>)
                                                   : (wide ? match<uint64_t, false> : match<uint32_t, false>);
}

template <class T, T (*kFunction)(T, T)>
void reduce(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const T* values = warp.lanes<T>(instruction.source(0));
  T result = values[first_lane(lanes)];
  for_each_lane(lanes & (lanes - 1), [&](unsigned lane) { result = kFunction(result, values[lane]); });
  T results[kWarpSize];
  std::fill_n(results, kWarpSize, result);
  warp.write(instruction.operands[0], results, lanes);
}

template <class T>
T sum(T a, T b) {
  return a + b;
}
template <class T>
T minimum(T a, T b) {
  return std::min(a, b);
}
template <class T>
T maximum(T a, T b) {
  return std::max(a, b);
}
uint32_t bitwise_and(uint32_t a, uint32_t b) { return a & b; }
uint32_t bitwise_or(uint32_t a, uint32_t b) { return a | b; }
uint32_t bitwise_xor(uint32_t a, uint32_t b) { return a ^ b; }

void bind_reduction(Binding& binding) {
  struct Reduction {
    std::string_view name;
    Execute of_unsigned, of_signed;
  };
  const Reduction reductions[] = {
      {"add", reduce<uint32_t, sum<uint32_t>>, reduce<uint32_t, sum<uint32_t>>},
      {"min", reduce<uint32_t, minimum<uint32_t>>, reduce<int32_t, minimum<int32_t>>},
      {"max", reduce<uint32_t, maximum<uint32_t>>, reduce<int32_t, maximum<int32_t>>},
      {"and", reduce<uint32_t, bitwise_and>, nullptr},
      {"or", reduce<uint32_t, bitwise_or>, nullptr},
      {"xor", reduce<uint32_t, bitwise_xor>, nullptr},
  };
  if (traits(binding.type()).kind == Kind::kFloat) binding.fail("redux of floating-point numbers is not supported");
  binding.add_destination(binding.operand(0), 4);
  binding.add_source(binding.operand(1), binding.type());
  add_members(binding, binding.operand(2));
  for (const Reduction& reduction : reductions) {
    if (!binding.has(reduction.name)) continue;
    binding.instruction.execute = binding.type() == Type::kS32 ? reduction.of_signed : reduction.of_unsigned;
  }
  if (!binding.instruction.execute) binding.fail("unknown reduction");
}

void active_mask(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  uint32_t results[kWarpSize];
  std::fill_n(results, kWarpSize, lanes);
  warp.write(instruction.operands[0], results, lanes);
}

void bind_active_mask(Binding& binding) {
  binding.add_destination(binding.operand(0), 4);
  binding.instruction.execute = active_mask;
}

}  // namespace

// bar.warp.sync, which shares its name with the barriers of blocks.
void bind_warp_barrier(Binding& binding) {
  add_members(binding, binding.operand(0));
  binding.instruction.instruction_class = InstructionClass::kWarp;
  binding.instruction.execute = [](Warp& warp, const Instruction&, LaneMask) {
    warp.block().shared().ordering().synchronize_warp(warp.index());
  };
}

void add_warp_operations(OperationTable& table) {
  table["shfl"] = bind_shuffle;
  table["vote"] = bind_vote;
  table["match"] = bind_match;
  table["redux"] = bind_reduction;
  table["activemask"] = bind_active_mask;
}

}  // namespace gpusim
