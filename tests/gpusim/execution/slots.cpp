#include "execution/slots.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "execution/register_lifetimes.h"

namespace gpusim {
namespace {

const std::set<std::string_view> kSpecialRegisters = {
    "%tid.x",       "%tid.y",       "%tid.z",       "%ntid.x",      "%ntid.y",          "%ntid.z",
    "%ctaid.x",     "%ctaid.y",     "%ctaid.z",     "%nctaid.x",    "%nctaid.y",        "%nctaid.z",
    "%laneid",      "%warpid",      "%nwarpid",     "%smid",        "%nsmid",           "%lanemask_eq",
    "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge", "%total_smem_size", "%dynamic_smem_size",
};

}  // namespace

Slots::Slots(const Function& function, const std::unordered_map<std::string, Symbol>& symbols) : symbols_(symbols) {
  add(Role::kConstant, 0, kAllLanes);  // kAlways
  for (const Register& entry : function.registers) {
    // Registers of 8 bits stand in 16.
    const unsigned bytes = traits(entry.type).bytes;
    names_[entry.name] = add(Role::kRegister, bytes == 1 ? 2 : bytes);
  }
}

uint32_t Slots::add(Role role, unsigned bytes, uint64_t bits) {
  slots_.push_back({role, bytes, bits});
  return static_cast<uint32_t>(slots_.size() - 1);
}

uint32_t Slots::constant(unsigned bytes, uint64_t bits) {
  if (bytes && bytes < 8) bits &= (1ull << (8 * bytes)) - 1;
  const auto [found, is_new] = constants_.try_emplace({bytes, bits});
  if (is_new) found->second = add(Role::kConstant, bytes, bits);
  return found->second;
}

uint32_t Slots::scratch(unsigned bytes) {
  const auto [found, is_new] = scratch_.try_emplace(bytes);
  if (is_new) found->second = add(Role::kRegister, bytes);
  return found->second;
}

uint32_t Slots::find(const std::string& name) {
  const auto found = names_.find(name);
  if (found != names_.end()) return found->second;
  if (!kSpecialRegisters.count(name)) return kNone;
  const uint32_t slot = add(Role::kSpecial, 4);
  names_[name] = slot;
  special_registers_.push_back({name, slot});
  return slot;
}

const Symbol* Slots::find_symbol(const std::string& name) const {
  const auto found = symbols_.find(name);
  return found == symbols_.end() ? nullptr : &found->second;
}

void Slots::lay_out(Kernel& kernel) const {
  std::vector<uint32_t> places(slots_.size());
  size_t end = 0;
  for (const Role role : {Role::kConstant, Role::kSpecial}) {
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot].role != role) continue;
      places[slot] = static_cast<uint32_t>(end);
      end += size_bytes(slots_[slot]);
      if (role != Role::kConstant) continue;
      kernel.constants.resize(end);
      const size_t bytes = slots_[slot].bytes ? slots_[slot].bytes : sizeof(LaneMask);
      const size_t copies = slots_[slot].bytes ? kWarpSize : 1;
      for (size_t i = 0; i < copies; ++i) {
        std::memcpy(&kernel.constants[places[slot] + i * bytes], &slots_[slot].bits, bytes);
      }
    }
  }
  std::vector<size_t> register_bytes(slots_.size());
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].role == Role::kRegister) register_bytes[slot] = size_bytes(slots_[slot]);
  }
  end = place_registers(kernel, register_bytes, end, places);
  for (Instruction& instruction : kernel.instructions) {
    instruction.guard = places[instruction.guard];
    for (unsigned i = 0; i < instruction.operand_count; ++i) instruction.operands[i] = places[instruction.operands[i]];
  }
  kernel.special_registers = special_registers_;
  for (SpecialRegister& special : kernel.special_registers) special.slot = places[special.slot];
  kernel.register_file_bytes = end;
}

}  // namespace gpusim
