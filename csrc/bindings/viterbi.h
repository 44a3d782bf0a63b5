// The trellis encoder as a function of the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace requant::cpu {

void define_viterbi(pybind11::module_& module);

}  // namespace requant::cpu
