// cp.async: copies from global to shared memory that the thread does not wait for.
#include <algorithm>

#include "memory/traffic.h"
#include "operations/addresses.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

enum class SourceSize : uint32_t { kWhole, kGiven, kIgnored };

// Sources: destination address, source address, [bytes to read, or a predicate that says to read none]. What is not
// read becomes zero.
void copy(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  const Addresses to = addresses_of(warp, instruction);
  const Addresses from =
      addresses_at(warp, instruction.source(1), instruction.wide_source_address, instruction.source_offset);
  const unsigned bytes = instruction.element_bytes;
  Block& block = warp.block();
  GlobalMemory& global = block.launch().global;
  const auto source_size = static_cast<SourceSize>(instruction.immediate);
  LaneMask reading = 0;
  uint64_t read_bytes = 0;
  for_each_lane(lanes, [&](unsigned lane) {
    unsigned size = bytes;
    if (source_size == SourceSize::kGiven) size = warp.lanes<uint32_t>(instruction.source(2))[lane];
    if (source_size == SourceSize::kIgnored) {
      const LaneMask ignored = warp.predicate(instruction.source(2)) ^ (instruction.modifier ? kAllLanes : 0);
      size = ignored >> lane & 1 ? 0 : bytes;
    }
    if (size > bytes) throw Violation{lane, "the source is larger than the destination"};
    std::byte data[AsyncCopies::kMaxBytes] = {};
    if (from.of[lane] % bytes != 0) throw Violation{lane, "misaligned source of an asynchronous copy"};
    // A part is read in pieces that are aligned as the whole is.
    for (unsigned done = 0; done < size;) {
      unsigned piece = bytes;
      while (piece > size - done) piece /= 2;
      std::memcpy(data + done, global.read(lane, from.of[lane] + done, piece), piece);
      done += piece;
    }
    if (size) reading |= 1u << lane;
    read_bytes += size;
    block.shared().start_copy({warp.index(), lane}, to.of[lane], bytes);
    block.copies(warp).start(lane, to.of[lane], bytes, data);
  });
  Tally& tally = block.tally(instruction);
  if (reading) {
    const uint64_t before = tally.global.bytes;
    count_request(tally.global, from.of, reading, bytes);
    tally.global.bytes = before + read_bytes;
  }
  count_request(tally.shared, to.of, lanes, bytes);
}

void commit(Warp& warp, const Instruction&, LaneMask lanes) { warp.block().copies(warp).commit(lanes); }

void wait_for_groups(Warp& warp, const Instruction& instruction, LaneMask lanes) {
  Block& block = warp.block();
  block.copies(warp).wait_for_groups(lanes, instruction.immediate, warp.index(), block.shared());
}

void wait_for_all(Warp& warp, const Instruction&, LaneMask lanes) {
  Block& block = warp.block();
  block.copies(warp).wait_for_all(lanes, warp.index(), block.shared());
}

void bind_copy(Binding& binding) {
  Instruction& instruction = binding.instruction;
  const uint64_t bytes = binding.immediate(binding.operand(2));
  if (bytes != 4 && bytes != 8 && bytes != 16) binding.fail("copies have 4, 8 or 16 bytes");
  if (binding.has("cg") && bytes != 16) binding.fail("cp.async.cg copies 16 bytes");
  instruction.element_bytes = static_cast<uint8_t>(bytes);
  instruction.space = Space::kShared;
  binding.add_address(binding.operand(0));
  binding.add_source_address(binding.operand(1));
  instruction.execute = copy;
  instruction.immediate = static_cast<uint32_t>(SourceSize::kWhole);
  if (binding.operand_count() < 4) return;
  // The fourth operand is the size of the source, a predicate, or a cache policy.
  const Operand& fourth = binding.operand(3);
  const bool is_policy = binding.has("L2::cache_hint") && binding.operand_count() == 4;
  if (is_policy) return;
  if (binding.is_immediate(fourth) || binding.register_bytes(fourth) == 4) {
    binding.add_source(fourth, Type::kU32);
    instruction.immediate = static_cast<uint32_t>(SourceSize::kGiven);
  } else {
    binding.add_predicate(fourth);
    instruction.immediate = static_cast<uint32_t>(SourceSize::kIgnored);
  }
}

void bind_async(Binding& binding) {
  if (!binding.has("async") || binding.has("bulk") || binding.has("mbarrier")) {
    binding.fail("only cp.async of compute capability 8.0 is supported, without mbarrier");
  }
  if (binding.has("commit_group")) {
    binding.instruction.execute = commit;
  } else if (binding.has("wait_group")) {
    binding.instruction.immediate = static_cast<uint32_t>(binding.immediate(binding.operand(0)));
    binding.instruction.execute = wait_for_groups;
  } else if (binding.has("wait_all")) {
    binding.instruction.execute = wait_for_all;
  } else {
    bind_copy(binding);
  }
}

}  // namespace

void add_async_copies(OperationTable& table) { table["cp"] = bind_async; }

}  // namespace gpusim
