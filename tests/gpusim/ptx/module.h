// A PTX module as a syntax tree: what the parser makes of the text, before any meaning is given to opcodes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ptx/type.h"
#include "simulator.h"

namespace gpusim {

enum class Space : uint8_t { kGeneric, kGlobal, kConstant, kShared, kLocal, kParameter };

struct Operand {
  enum class Kind : uint8_t {
    kName,     // register, special register, variable, label or function, plus `bits`
    kInteger,  // `bits`
    kFloat32,  // `bits`: its encoding
    kFloat64,
    kVector,   // { parts } or ( parts )
    kAddress,  // [ parts[0] + bits ]; [ bits ] without parts
    kPair,     // parts[0] | parts[1]
    kSink,     // _
  };
  Kind kind;
  std::string name;
  bool negated = false;  // !predicate
  uint64_t bits = 0;
  std::vector<Operand> parts;
};

struct Statement {
  unsigned line;
  std::string text;
  std::string guard;  // predicate register, or empty
  bool guard_negated = false;
  std::vector<std::string> opcode;  // the words between the dots
  std::vector<Operand> operands;

  bool has(std::string_view modifier) const {
    for (size_t i = 1; i < opcode.size(); ++i) {
      if (opcode[i] == modifier) return true;
    }
    return false;
  }
};

struct Variable {
  std::string name;
  Space space;
  Type type;
  uint64_t alignment;
  uint64_t bytes;                      // 0: sized at launch
  std::vector<uint8_t> initial_value;  // empty, or as long as the variable
};

struct Register {
  std::string name;
  Type type;
};

struct Function {
  std::string name;
  bool is_entry = false;
  std::vector<Parameter> parameters;
  unsigned max_threads = 1024;
  std::vector<Register> registers;
  std::vector<Variable> variables;  // shared and local
  std::vector<Statement> statements;
  std::map<std::string, size_t> labels;  // index of the statement that follows
  std::map<std::string, std::vector<std::string>> branch_targets;
};

struct Module {
  std::vector<Variable> variables;
  std::vector<Function> functions;
};

}  // namespace gpusim
