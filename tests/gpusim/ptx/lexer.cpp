#include "ptx/lexer.h"

#include <algorithm>
#include <cctype>

namespace gpusim {
namespace {

bool is_word(char character) {
  return std::isalnum(static_cast<unsigned char>(character)) || character == '_' || character == '$' ||
         character == '%' || character == '.';
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  unsigned line = 1;
  size_t at = 0;
  const auto skip_to = [&](size_t end) {
    end = std::min(end, text.size());
    line += static_cast<unsigned>(std::count(text.begin() + at, text.begin() + end, '\n'));
    at = end;
  };
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    size_t length = 1;
    if (std::isspace(static_cast<unsigned char>(rest[0])) || rest[0] == '\0') {
      skip_to(at + 1);
      continue;
    }
    if (rest.substr(0, 2) == "//") {
      skip_to(std::min(text.find('\n', at), text.size()));
      continue;
    }
    if (rest.substr(0, 2) == "/*") {
      const size_t end = text.find("*/", at + 2);
      skip_to(end == std::string_view::npos ? text.size() : end + 2);
      continue;
    }
    if (rest[0] == '"') {
      const size_t end = text.find('"', at + 1);
      length = (end == std::string_view::npos ? text.size() : end + 1) - at;
    } else if (is_word(rest[0])) {
      while (length < rest.size()) {
        if (is_word(rest[length])) {
          ++length;
        } else if (rest.substr(length, 2) == "::") {  // as in ld.global.L1::no_allocate
          length += 2;
        } else {
          break;
        }
      }
    }
    tokens.push_back({rest.substr(0, length), line});
    skip_to(at + length);
  }
  return tokens;
}

}  // namespace gpusim
