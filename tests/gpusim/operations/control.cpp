// Control flow and synchronisation: bra, brx, ret, exit, trap, bar, barrier, membar, fence.
#include "execution/block.h"
#include "operations/operations.h"

namespace gpusim {
namespace {

void do_nothing(Warp&, const Instruction&, LaneMask) {}

void bind_exit(Binding& binding) { binding.instruction.flow = Flow::kExit; }

// The decoder fills in the targets of branches.
void bind_branch(Binding& binding) { binding.instruction.flow = Flow::kBranch; }

void bind_indexed_branch(Binding& binding) {
  if (!binding.has("idx")) binding.fail("only brx.idx");
  binding.instruction.flow = Flow::kIndexedBranch;
  binding.add_source(binding.operand(0), Type::kU32);
}

void bind_trap(Binding& binding) {
  binding.instruction.execute = [](Warp&, const Instruction&, LaneMask lanes) {
    throw Violation{first_lane(lanes), "the kernel has stopped itself"};
  };
}

void bind_nothing(Binding& binding) { binding.instruction.execute = do_nothing; }

void bind_call(Binding& binding) { binding.fail("calls are not supported; compile with functions inlined"); }

void bind_fence(Binding& binding) {
  binding.instruction.instruction_class = InstructionClass::kBarrier;
  const bool within_block = binding.has("cta");
  binding.instruction.execute = within_block ? do_nothing : [](Warp& warp, const Instruction&, LaneMask) {
    warp.block().launch().global.fence();
  };
}

// bar.sync a [, b]; bar.arrive a, b; bar.red.popc d, a [, b], p. Slots: [d,] number, threads or 0 [, p].
void bind_barrier(Binding& binding) {
  Instruction& instruction = binding.instruction;
  if (binding.has("warp")) return bind_warp_barrier(binding);
  if (binding.has("cluster")) binding.fail("barriers of clusters are not supported");
  instruction.flow = Flow::kBarrier;
  instruction.instruction_class = InstructionClass::kBarrier;
  const bool reduces = binding.has("red");
  const size_t first = reduces ? 1 : 0;
  const size_t count = binding.operand_count() - first - (reduces ? 1 : 0);
  BarrierReduction reduction = BarrierReduction::kNone;
  if (reduces) {
    reduction = binding.has("popc")  ? BarrierReduction::kCount
                : binding.has("and") ? BarrierReduction::kAnd
                                     : BarrierReduction::kOr;
    binding.add_destination(binding.operand(0), reduction == BarrierReduction::kCount ? 4 : 0);
  }
  binding.add_source(binding.operand(first), Type::kU32);
  if (count == 2) {
    binding.add_source(binding.operand(first + 1), Type::kU32);
  } else {
    binding.add_constant(0);
  }
  if (reduces) binding.add_predicate(binding.operand(first + count));
  instruction.immediate = static_cast<uint32_t>(reduction);
  if (binding.has("arrive")) {
    if (count != 2) binding.fail("bar.arrive wants the number of threads");
    instruction.execute = do_nothing;  // tells the block that the warp goes on
  }
}

}  // namespace

void add_control_operations(OperationTable& table) {
  table["bra"] = bind_branch;
  table["brx"] = bind_indexed_branch;
  table["ret"] = bind_exit;
  table["exit"] = bind_exit;
  table["trap"] = bind_trap;
  table["brkpt"] = bind_trap;
  for (const char* name : {"nanosleep", "griddepcontrol", "pmevent"}) table[name] = bind_nothing;
  table["call"] = bind_call;
  table["bar"] = bind_barrier;
  table["barrier"] = bind_barrier;
  table["membar"] = bind_fence;
  table["fence"] = bind_fence;
}

}  // namespace gpusim
