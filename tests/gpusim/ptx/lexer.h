// PTX text as a sequence of tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gpusim {

struct Token {
  std::string_view text;  // a word (identifier, number, opcode or directive with its dots), a string, or one character
  unsigned line;          // from 1
};

// The tokens refer to the text, which must outlive them. Comments are left out.
std::vector<Token> tokenize(std::string_view text);

}  // namespace gpusim
