// Starting the linear kernel with the tile shape that a plan asks for.
#pragma once

#include "cuda/launch.h"
#include "cuda/linear.cuh"

namespace requant::cuda {

template <class Weights, class Shape>
void launch_shape(const Plan& plan, const LinearParameters& parameters, cudaStream_t stream) {
  if (plan.token_tiles != Shape::kTokenTiles || plan.row_warps != Shape::kRowWarps) return;
  const dim3 grid(plan.token_groups, plan.row_groups, plan.splits);
  linear_kernel<Weights, Shape><<<grid, kThreads, plan.shared_bytes, stream>>>(parameters);
}

template <class Weights, class... Shapes>
void launch_fitting(const Plan& plan, const LinearParameters& parameters, cudaStream_t stream, std::tuple<Shapes...>) {
  (launch_shape<Weights, Shapes>(plan, parameters, stream), ...);
}

template <class Weights>
void launch_linear(const Plan& plan, const LinearParameters& parameters, void* stream) {
  launch_fitting<Weights>(plan, parameters, static_cast<cudaStream_t>(stream), CtaShapes{});
}

// Whether all of Groups::kSpans holds.
inline bool has_scales_by_spans(const Weight& weight) {
  return (weight.group_size < 0 || weight.group_size % kSpanInputs == 0) && weight.scale_dtype != Dtype::kFloat32;
}

}  // namespace requant::cuda
