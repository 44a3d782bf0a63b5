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

// The launchers of one number of bits.
template <template <int, class> class Weights, int kBits>
Launch find_launch(Dtype dtype) {
  if (dtype == Dtype::kFloat16) return launch_linear<Weights<kBits, __half>>;
  if (dtype == Dtype::kBFloat16) return launch_linear<Weights<kBits, __nv_bfloat16>>;
  return nullptr;
}

}  // namespace requant::cuda
