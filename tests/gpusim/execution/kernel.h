// A kernel, decoded and ready to launch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "execution/instruction.h"

namespace gpusim {

// A special register that the kernel reads, and its slot.
struct SpecialRegister {
  std::string name;
  uint32_t slot;
};

// The line of the PTX text that an instruction comes from.
struct SourceLine {
  unsigned line;
  std::string text;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  size_t parameter_bytes = 0;
  unsigned max_threads = 1024;
  size_t static_shared_bytes = 0;
  size_t local_bytes = 0;  // per thread
  std::vector<Instruction> instructions;
  std::vector<SourceLine> lines;                     // of the instructions
  std::vector<std::vector<uint32_t>> branch_tables;  // of brx.idx: indices of instructions
  std::vector<SpecialRegister> special_registers;
  std::vector<std::byte> constants;  // the first bytes of every register file
  size_t register_file_bytes = 0;    // per warp
};

}  // namespace gpusim
