// PTX text to syntax tree.
#pragma once

#include <string>

#include "ptx/module.h"

namespace gpusim {

// Throws ParseError with the line of the text.
Module parse(const std::string& text);

}  // namespace gpusim
