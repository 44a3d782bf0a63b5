// The launchers of the linear kernel, one table per format. Plain C++.
#pragma once

#include "cuda/plan.h"

namespace requant::cuda {

struct LinearParameters;

// Starts the kernel; errors are left for cudaGetLastError.
using Launch = void (*)(const Plan& plan, const LinearParameters& parameters, void* stream);

// The launcher for these bits and this dtype of x, or null.
Launch find_uniform_launch(int bits, Dtype dtype);
Launch find_lut_launch(int bits, Dtype dtype);

}  // namespace requant::cuda
