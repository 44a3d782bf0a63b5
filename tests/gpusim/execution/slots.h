// The register file of a kernel: which slots there are, and where each stands.
//
//   | constants, the same in every lane | special registers | registers |
//
// A slot holds 32 lanes side by side; a predicate is one LaneMask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "execution/kernel.h"
#include "ptx/module.h"

namespace gpusim {

// The address of a variable in its space.
struct Symbol {
  Space space;
  uint64_t address;
};

class Slots {
 public:
  // Declares the function's registers. The symbols must outlive the slots.
  Slots(const Function& function, const std::unordered_map<std::string, Symbol>& symbols);

  // Numbers of slots, to be turned into places by lay_out.
  uint32_t constant(unsigned bytes, uint64_t bits);
  uint32_t always() const { return kAlways; }
  uint32_t scratch(unsigned bytes);  // for results that nobody wants
  // The slot of a register or special register of this name, or kNone.
  uint32_t find(const std::string& name);
  const Symbol* find_symbol(const std::string& name) const;
  unsigned bytes(uint32_t slot) const { return slots_[slot].bytes; }

  // Replaces slot numbers in the kernel's instructions by places, and fills its constants, special registers and size.
  void lay_out(Kernel& kernel) const;

  static constexpr uint32_t kNone = 0xffffffff;

 private:
  static constexpr uint32_t kAlways = 0;

  enum class Role : uint8_t { kConstant, kSpecial, kRegister };
  struct Slot {
    Role role;
    unsigned bytes;  // per lane; 0: a predicate
    uint64_t bits;   // of a constant
  };
  static size_t size_bytes(const Slot& slot) { return slot.bytes ? slot.bytes * kWarpSize : 8; }
  uint32_t add(Role role, unsigned bytes, uint64_t bits = 0);

  const std::unordered_map<std::string, Symbol>& symbols_;
  std::vector<Slot> slots_;
  std::unordered_map<std::string, uint32_t> names_;
  std::map<std::pair<unsigned, uint64_t>, uint32_t> constants_;
  std::map<unsigned, uint32_t> scratch_;
  std::vector<SpecialRegister> special_registers_;
};

}  // namespace gpusim
