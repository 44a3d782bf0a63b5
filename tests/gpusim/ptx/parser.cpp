#include "ptx/parser.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "ptx/lexer.h"

namespace gpusim {
namespace {

// Directives that say nothing about what a kernel does, by how far they reach.
const std::set<std::string_view> kIgnoredLines = {".version", ".target", ".address_size", ".file", ".loc"};
const std::set<std::string_view> kIgnoredStatements = {".pragma", ".alias", ".callprototype", ".calltargets"};
const std::set<std::string_view> kLinkage = {".visible", ".extern", ".weak", ".common"};

const std::map<std::string_view, Space> kVariableSpaces = {
    {".global", Space::kGlobal}, {".const", Space::kConstant},  {".shared", Space::kShared},
    {".local", Space::kLocal},   {".param", Space::kParameter},
};

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

class Parser {
 public:
  explicit Parser(const std::string& text) : tokens_(tokenize(text)) {}

  Module parse() {
    while (!at_end()) {
      if (skip_ignored() || accept_any(kLinkage)) continue;
      if (peek() == ".entry" || peek() == ".func") {
        parse_function();
      } else if (kVariableSpaces.count(peek())) {
        module_.variables.push_back(parse_variable());
      } else {
        fail("expected a kernel, a function or a variable");
      }
    }
    return std::move(module_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    const unsigned line = tokens_.empty() ? 1 : tokens_[std::min(at_, tokens_.size() - 1)].line;
    const std::string found = at_end() ? "the end" : "'" + std::string(peek()) + "'";
    throw ParseError("PTX line " + std::to_string(line) + ": " + message + ", found " + found);
  }

  // What stands between two braces.
  struct Scope {
    unsigned number;
    size_t first_statement;
    std::map<std::string, std::string> names;  // as written, and as unique in the function
  };

  // Tokens.
  bool at_end() const { return at_ >= tokens_.size(); }
  std::string_view peek(size_t ahead = 0) const {
    return at_ + ahead < tokens_.size() ? tokens_[at_ + ahead].text : std::string_view();
  }
  std::string_view next() {
    if (at_end()) fail("the text ends too early");
    return tokens_[at_++].text;
  }
  bool accept(std::string_view token) {
    if (peek() != token) return false;
    ++at_;
    return true;
  }
  bool accept_any(const std::set<std::string_view>& choices) {
    if (!choices.count(peek())) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) fail("expected '" + std::string(token) + "'");
  }
  void skip_line() {
    const unsigned line = tokens_[at_].line;
    while (!at_end() && tokens_[at_].line == line) ++at_;
  }
  void skip_past(std::string_view token) {
    while (next() != token) {
    }
  }

  bool skip_ignored() {
    if (kIgnoredLines.count(peek())) {
      skip_line();
    } else if (kIgnoredStatements.count(peek())) {
      skip_past(";");
    } else if (peek() == ".section") {
      skip_past("{");
      for (int depth = 1; depth > 0;) {
        const std::string_view token = next();
        depth += token == "{" ? 1 : token == "}" ? -1 : 0;
      }
    } else {
      return false;
    }
    return true;
  }

  // Numbers.
  static bool is_number(std::string_view word) { return !word.empty() && word[0] >= '0' && word[0] <= '9'; }

  Operand parse_number(std::string_view word) const {
    const bool encoded = word.size() > 2 && word[0] == '0' && std::strchr("fFdD", word[1]);
    Operand operand{};
    const std::string copy(word);
    char* end = nullptr;
    if (encoded && (word[1] == 'f' || word[1] == 'F')) {
      operand.kind = Operand::Kind::kFloat32;
      operand.bits = std::strtoull(copy.c_str() + 2, &end, 16);
    } else if (encoded) {
      operand.kind = Operand::Kind::kFloat64;
      operand.bits = std::strtoull(copy.c_str() + 2, &end, 16);
    } else if (word.substr(0, 2) != "0x" && word.substr(0, 2) != "0X" &&
               word.find_first_of(".eE") != std::string_view::npos) {
      operand.kind = Operand::Kind::kFloat64;
      const double value = std::strtod(copy.c_str(), &end);
      std::memcpy(&operand.bits, &value, sizeof value);
    } else if (word.substr(0, 2) == "0b" || word.substr(0, 2) == "0B") {
      operand.kind = Operand::Kind::kInteger;
      operand.bits = std::strtoull(copy.c_str() + 2, &end, 2);
    } else {
      operand.kind = Operand::Kind::kInteger;
      operand.bits = std::strtoull(copy.c_str(), &end, 0);
    }
    if (end && *end == 'U') ++end;
    if (!end || *end) fail("bad number '" + copy + "'");
    return operand;
  }

  uint64_t parse_integer() {
    const bool negative = accept("-");
    const Operand number = parse_number(next());
    if (number.kind != Operand::Kind::kInteger) fail("expected an integer");
    return negative ? -number.bits : number.bits;
  }

  Type parse_type() {
    const std::string_view word = next();
    const auto type = word[0] == '.' ? find_type(word.substr(1)) : std::nullopt;
    if (!type) {
      --at_;
      fail("expected a type");
    }
    return *type;
  }

  // Variables and parameters: .shared .align 4 .b8 name[2][16] = {1, 2};
  Variable parse_declaration() {
    Variable variable{};
    variable.space = kVariableSpaces.at(next());
    uint64_t vector_length = 1;
    bool typed = false;
    while (peek().substr(0, 1) == ".") {
      if (accept(".align")) {
        variable.alignment = parse_integer();
      } else if (accept(".ptr") || accept(".global") || accept(".const") || accept(".shared")) {
        continue;  // what a pointer parameter points to; an .align that follows is the target's
      } else if (accept(".v2") || accept(".v4")) {
        vector_length = tokens_[at_ - 1].text == ".v2" ? 2 : 4;
      } else {
        variable.type = parse_type();
        typed = true;
      }
    }
    if (!typed) fail("expected a type");
    variable.name = next();
    const uint64_t element_bytes = traits(variable.type).bytes * vector_length;
    variable.bytes = element_bytes;
    while (accept("[")) {
      if (accept("]")) {
        variable.bytes = 0;
      } else {
        variable.bytes *= parse_integer();
        expect("]");
      }
    }
    // The alignment of what a .ptr parameter points to is not the parameter's own.
    const bool is_array = variable.bytes != element_bytes;
    if (!variable.alignment || (variable.space == Space::kParameter && !is_array)) variable.alignment = element_bytes;
    return variable;
  }

  Variable parse_variable() {
    Variable variable = parse_declaration();
    if (accept("=")) parse_initial_value(variable);
    expect(";");
    return variable;
  }

  void parse_initial_value(Variable& variable) {
    std::vector<uint8_t> value;
    for (int depth = 0; depth > 0 || peek() != ";";) {
      if (accept("{")) {
        ++depth;
      } else if (accept("}")) {
        --depth;
      } else if (!accept(",")) {
        const bool negative = accept("-");
        Operand number = parse_number(next());
        if (traits(variable.type).kind == Kind::kFloat && number.kind == Operand::Kind::kInteger) {
          fail("expected a floating-point number");
        }
        if (negative) number.bits = -number.bits;
        for (unsigned i = 0; i < traits(variable.type).bytes; ++i) value.push_back(number.bits >> (8 * i) & 0xff);
      }
    }
    if (value.size() > variable.bytes) fail("more initial values than the variable holds");
    value.resize(variable.bytes);
    variable.initial_value = std::move(value);
  }

  // Functions.
  void parse_function() {
    function_ = Function();
    function_.is_entry = next() == ".entry";
    if (peek() == "(") parse_parameters();  // results of a .func
    function_.name = next();
    if (peek() == "(") parse_parameters();
    while (peek() != "{" && peek() != ";") {
      if (peek() == ".maxntid" || peek() == ".reqntid") {
        ++at_;
        uint64_t threads = parse_integer();
        while (accept(",")) threads *= parse_integer();
        function_.max_threads = static_cast<unsigned>(threads);
      } else {
        next();
      }
    }
    if (accept(";")) return;  // a declaration
    parse_body();
    module_.functions.push_back(std::move(function_));
  }

  void parse_parameters() {
    expect("(");
    size_t offset = 0;
    while (!accept(")")) {
      const Variable variable = parse_declaration();
      offset = align_up(offset, variable.alignment);
      function_.parameters.push_back(
          {variable.name, std::string(traits(variable.type).name), variable.bytes, variable.alignment, offset});
      offset += variable.bytes;
      accept(",");
    }
  }

  void parse_body() {
    expect("{");
    scope_count_ = 0;
    open_scope();
    while (!scopes_.empty()) {
      if (accept("{")) {
        open_scope();
      } else if (accept("}")) {
        close_scope();
      } else if (skip_ignored()) {
        continue;
      } else if (peek() == ".reg") {
        parse_registers();
      } else if (kVariableSpaces.count(peek())) {
        Variable variable = parse_variable();
        variable.name = declare(variable.name);
        function_.variables.push_back(std::move(variable));
      } else if (peek(1) == ":") {
        parse_label();
      } else {
        parse_statement();
      }
    }
  }

  void parse_registers() {
    expect(".reg");
    const Type type = parse_type();
    do {
      const std::string name(next());
      if (accept("<")) {
        const uint64_t count = parse_integer();
        expect(">");
        for (uint64_t i = 0; i < count; ++i) declare_register(name + std::to_string(i), type);
      } else {
        declare_register(name, type);
      }
    } while (accept(","));
    expect(";");
  }

  void declare_register(const std::string& name, Type type) { function_.registers.push_back({declare(name), type}); }

  // Names in inner braces get the number of their scope, so that they are unique in the function.
  std::string declare(const std::string& name) {
    Scope& scope = scopes_.back();
    const std::string unique = scopes_.size() == 1 ? name : name + "@" + std::to_string(scope.number);
    scope.names[name] = unique;
    return unique;
  }

  std::string resolve(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->names.find(std::string(name));
      if (found != scope->names.end()) return found->second;
    }
    return std::string(name);
  }

  void parse_label() {
    const std::string name(next());
    expect(":");
    if (accept(".branchtargets")) {
      do {
        function_.branch_targets[name].emplace_back(next());
      } while (accept(","));
      expect(";");
      return;
    }
    function_.labels[declare(name)] = function_.statements.size();
  }

  void open_scope() { scopes_.push_back({scope_count_++, function_.statements.size(), {}}); }

  // A jump may stand before its label, so the names of labels are resolved where their scope ends.
  void close_scope() {
    const Scope& scope = scopes_.back();
    for (size_t i = scope.first_statement; i < function_.statements.size(); ++i) {
      Statement& statement = function_.statements[i];
      if (statement.opcode[0] != "bra" || statement.operands.empty()) continue;
      const auto label = scope.names.find(statement.operands[0].name);
      if (label != scope.names.end()) statement.operands[0].name = label->second;
    }
    scopes_.pop_back();
  }

  void parse_statement() {
    Statement statement;
    statement.line = tokens_[at_].line;
    const char* begin = tokens_[at_].text.data();
    if (accept("@")) {
      statement.guard_negated = accept("!");
      statement.guard = resolve(next());
    }
    std::string_view opcode = next();
    while (!opcode.empty()) {
      const size_t dot = opcode.find('.');
      statement.opcode.emplace_back(opcode.substr(0, dot));
      opcode = dot == std::string_view::npos ? std::string_view() : opcode.substr(dot + 1);
    }
    while (peek() != ";") {
      statement.operands.push_back(parse_operand());
      if (!accept(",") && peek() != ";") fail("expected ',' or ';'");
    }
    const char* end = tokens_[at_].text.data();
    expect(";");
    statement.text = one_line(std::string_view(begin, end - begin));
    function_.statements.push_back(std::move(statement));
  }

  static std::string one_line(std::string_view text) {
    std::string line;
    for (const char character : text) {
      const bool space = character == ' ' || character == '\t' || character == '\n' || character == '\r';
      if (!space) {
        line += character;
      } else if (!line.empty() && line.back() != ' ') {
        line += ' ';
      }
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line;
  }

  Operand parse_operand() {
    Operand operand = parse_single_operand();
    if (accept("|")) {
      Operand second = parse_single_operand();
      operand = Operand{Operand::Kind::kPair, "", false, 0, {std::move(operand), std::move(second)}};
    }
    return operand;
  }

  Operand parse_single_operand() {
    Operand operand{};
    if (accept("{") || accept("(")) {
      operand.kind = Operand::Kind::kVector;
      while (!accept("}") && !accept(")")) {
        operand.parts.push_back(parse_operand());
        accept(",");
      }
      return operand;
    }
    if (accept("[")) {
      operand.kind = Operand::Kind::kAddress;
      Operand base = parse_operand();
      operand.bits = base.bits;
      base.bits = 0;
      if (base.kind == Operand::Kind::kName) operand.parts.push_back(std::move(base));
      expect("]");
      return operand;
    }
    if (accept("!")) {
      operand = parse_single_operand();
      operand.negated = true;
      return operand;
    }
    if (accept("-")) {
      operand = parse_number(next());
      if (operand.kind == Operand::Kind::kInteger) {
        operand.bits = -operand.bits;
      } else {
        operand.bits ^= operand.kind == Operand::Kind::kFloat32 ? 1ull << 31 : 1ull << 63;
      }
      return operand;
    }
    const std::string_view word = next();
    if (is_number(word)) return parse_number(word);
    if (word == "_") {
      operand.kind = Operand::Kind::kSink;
      return operand;
    }
    operand.kind = Operand::Kind::kName;
    operand.name = resolve(word);
    if (accept("+")) {
      operand.bits = parse_integer();
    } else if (peek() == "-") {
      operand.bits = parse_integer();
    }
    return operand;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Module module_;
  Function function_;
  std::vector<Scope> scopes_;
  unsigned scope_count_ = 0;
};

}  // namespace

Module parse(const std::string& text) { return Parser(text).parse(); }

}  // namespace gpusim
