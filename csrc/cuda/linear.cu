// One call: parameters, the kernel of the format, and the sum over splits.
#include <stdexcept>
#include <string>

#include "common/tile16.h"
#include "cuda/check_launch.h"
#include "cuda/launch.h"
#include "cuda/parameters.cuh"
#include "cuda/sparse.cuh"
#include "cuda/write_sums.cuh"

namespace requant::cuda {

// y from the partial sums of all splits, in order.
__global__ void add_splits_kernel(const float* partials, int splits, int64_t tokens, int64_t out_features,
                                  const void* bias, Dtype bias_dtype, void* y, Dtype y_dtype) {
  const int64_t count = tokens * out_features;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= count) return;
  float sum = 0;
  for (int split = 0; split < splits; ++split) sum += partials[split * count + index];
  if (bias != nullptr) sum += number_of(load_number(bias, bias_dtype, index % out_features), bias_dtype);
  store_number(y, y_dtype, index, sum);
}

namespace {

// input * multiplier / 2^32 = input / group_size, rounded down, as long as the product of both is below 2^37 (both are
// multiples of 32).
uint32_t group_multiplier(int64_t group_size) {
  return static_cast<uint32_t>(((int64_t{1} << 32) + group_size - 1) / group_size);
}

}  // namespace

LinearParameters make_parameters(const LinearArguments& arguments, const Plan& plan) {
  const Weight& weight = arguments.weight;
  LinearParameters p{};
  p.weight = weight;
  p.tiles = static_cast<int>((weight.out_features + 15) / 16);
  p.blocks = static_cast<int>((weight.in_features + 63) / 64);
  p.tile_bytes = p.blocks * 16 * kBlockInputs * weight.bits / 8;
  const bool one_group = weight.group_size < 0;
  p.group_multiplier = group_multiplier(one_group ? int64_t{p.blocks} * kBlockInputs : weight.group_size);
  p.groups = one_group ? 1 : static_cast<int>((weight.in_features + weight.group_size - 1) / weight.group_size);
  p.scale_bytes_log2 = weight.scale_dtype == Dtype::kFloat32 ? 2 : 1;
  p.x = arguments.x;
  p.tokens = static_cast<int>(arguments.tokens);
  p.aligned_x = reinterpret_cast<uintptr_t>(arguments.x) % 16 == 0 && weight.in_features % 8 == 0;
  p.bias = arguments.bias;
  p.bias_dtype = arguments.bias_dtype;
  p.y = arguments.y;
  p.partials = plan.splits > 1 ? static_cast<float*>(arguments.workspace) : nullptr;
  p.split_inputs = plan.split_inputs;
  p.chunk_inputs = plan.chunk_inputs;
  const int64_t tile_tokens = arguments.tokens < 8 * plan.token_tiles ? arguments.tokens : 8 * plan.token_tiles;
  p.chunk_length = static_cast<int>(tile_tokens) * (plan.chunk_inputs + kRowPadding);
  while (1 << p.token_slots_log2 < tile_tokens) ++p.token_slots_log2;
  p.token_slots = 1 << p.token_slots_log2;
  p.entry_slots = kWarpLanes / p.token_slots;
  p.slices = static_cast<int>((weight.in_features + kSliceInputs - 1) / kSliceInputs);
  return p;
}

namespace {

Launch find_launch(const Weight& weight, Dtype dtype) {
  switch (weight.format) {
    case Format::kUniform:
      return find_uniform_launch(weight, dtype);
    case Format::kLut:
      return find_lut_launch(weight, dtype);
    default:
      return nullptr;
  }
}

}  // namespace

void linear(const LinearArguments& arguments, const Device& device) {
  const Weight& weight = arguments.weight;
  if (arguments.tokens < 1 || arguments.tokens > kMaxTokens) {
    throw std::invalid_argument("tokens must lie in 1.." + std::to_string(kMaxTokens) + ", got " +
                                std::to_string(arguments.tokens));
  }
  if (weight.format == Format::kTrellis) return linear_trellis(arguments, device);
  if (arguments.x_dtype == Dtype::kBFloat16 && device.capability < 80) {
    throw std::invalid_argument("bf16 inputs need a device of compute capability 8.0, this one has " +
                                std::to_string(device.capability / 10) + "." + std::to_string(device.capability % 10));
  }
  const Launch launch = find_launch(weight, arguments.x_dtype);
  if (launch == nullptr) {
    throw std::invalid_argument("no kernel for " + std::to_string(weight.bits) + " bits and this dtype of x");
  }
  const Plan plan = make_plan(weight, arguments.tokens, device);
  const LinearParameters parameters = make_parameters(arguments, plan);
  launch(plan, parameters, device.stream);
  check_launch("the linear kernel");
  if (plan.splits > 1) {
    constexpr int kBlock = 256;
    const int64_t count = arguments.tokens * weight.out_features;
    const auto grid = static_cast<unsigned>((count + kBlock - 1) / kBlock);
    add_splits_kernel<<<grid, kBlock, 0, static_cast<cudaStream_t>(device.stream)>>>(
        parameters.partials, plan.splits, arguments.tokens, weight.out_features, arguments.bias, arguments.bias_dtype,
        arguments.y, arguments.x_dtype);
    check_launch("the sum over splits");
  }
}

}  // namespace requant::cuda
