// Starting the linear kernel with the tile shape that a plan asks for.
#pragma once

#include "cuda/launch.h"
#include "cuda/linear.cuh"

namespace requant::cuda {

template <class Weights, int kTokenTiles>
void launch_shape(const Plan& plan, const LinearParameters& parameters, cudaStream_t stream) {
  const dim3 grid(plan.token_groups, plan.row_groups, plan.splits);
  linear_kernel<Weights, kTokenTiles><<<grid, kThreads, plan.shared_bytes, stream>>>(parameters);
}

template <class Weights>
void launch_linear(const Plan& plan, const LinearParameters& parameters, void* stream_handle) {
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  switch (plan.token_tiles) {
    case 1:
      return launch_shape<Weights, 1>(plan, parameters, stream);
    case 2:
      return launch_shape<Weights, 2>(plan, parameters, stream);
    default:
      return launch_shape<Weights, 4>(plan, parameters, stream);
  }
}

// Whether all of Groups::kSpans holds.
inline bool has_scales_by_spans(const Weight& weight) {
  return (weight.group_size < 0 || weight.group_size % kSpanInputs == 0) && weight.scale_dtype != Dtype::kFloat32;
}

}  // namespace requant::cuda
