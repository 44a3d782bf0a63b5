// Format `trellis`, kernels and encoder, as functions of the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace requant::cpu {

void define_trellis(pybind11::module_& module);

}  // namespace requant::cpu
