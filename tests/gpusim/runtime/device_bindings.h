// The simulated device as functions of a Python module: memory regions, PTX, the log of launches.
#pragma once

#include <pybind11/pybind11.h>

namespace gpusim {

void define_device(pybind11::module_& module);

}  // namespace gpusim
