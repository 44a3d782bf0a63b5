// From the syntax tree of a kernel to instructions that can be executed.
#pragma once

#include <string>
#include <unordered_map>

#include "execution/kernel.h"
#include "execution/slots.h"
#include "ptx/module.h"

namespace gpusim {

// Module variables by name, with the address of each: a host address, or for shared memory a variable that the kernel
// places.
struct ModuleSymbols {
  std::unordered_map<std::string, Symbol> placed;
  std::vector<Variable> shared;
};

// Throws ParseError.
Kernel decode(const Function& function, const ModuleSymbols& module);

}  // namespace gpusim
