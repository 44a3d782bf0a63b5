// The launchers of the linear kernel, one table per format. Plain C++.
#pragma once

#include "cuda/plan.h"

namespace requant::cuda {

struct LinearParameters;

LinearParameters make_parameters(const LinearArguments& arguments, const Plan& plan);

// Starts the kernel; errors are left for cudaGetLastError.
using Launch = void (*)(const Plan& plan, const LinearParameters& parameters, void* stream);

// The launcher for a weight of that format and this dtype of x, or null.
Launch find_uniform_launch(const Weight& weight, Dtype dtype);
Launch find_lut_launch(const Weight& weight, Dtype dtype);
Launch find_trellis_launch(const Weight& weight);

// `linear` for format trellis: three launches.
void linear_trellis(const LinearArguments& arguments, const Device& device);
size_t trellis_workspace_bytes(const Weight& weight, int64_t tokens, const Device& device);

}  // namespace requant::cuda
