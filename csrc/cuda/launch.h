// The launchers of the linear kernel, one table per format. Plain C++.
#pragma once

#include "cuda/plan.h"

namespace requant::cuda {

struct LinearParameters;

// Starts the kernel; errors are left for cudaGetLastError.
using Launch = void (*)(const Plan& plan, const LinearParameters& parameters, void* stream);

// The launcher for a weight of that format and this dtype of x, or null.
Launch find_uniform_launch(const Weight& weight, Dtype dtype);
Launch find_lut_launch(const Weight& weight, Dtype dtype);

}  // namespace requant::cuda
