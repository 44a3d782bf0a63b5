// A layer of format `trellis`: rotated inputs, their product with C, and outputs rotated back. Three launches.
#include <stdexcept>
#include <string>

#include "cuda/check_launch.h"
#include "cuda/launch.h"
#include "cuda/parameters.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {
namespace {

// C as a weight of its own: sizes padded as the linear kernel wants them, of x to its blocks of 64 inputs.
Weight rotated_weight(const Weight& weight) {
  Weight rotated = weight;
  rotated.in_features = (weight.in_features + kBlockInputs - 1) / kBlockInputs * kBlockInputs;
  rotated.out_features = pad_to_trellis_tile(weight.out_features);
  return rotated;
}

// What stands where in the workspace, in bytes.
struct Workspace {
  size_t rotated;        // fp16 [tokens, in_features padded to 64]
  size_t token_factors;  // fp32 [tokens]
  size_t products;       // fp32 [splits, tokens, out_features padded to 16]
  size_t sparse_sums;    // the same again, if there is a sparse part
  size_t bytes;
};

Workspace make_workspace(const Weight& rotated, int64_t tokens, const Plan& plan) {
  constexpr size_t kAlignment = 256;
  size_t end = 0;
  const auto reserve = [&](int64_t bytes) {
    const size_t begin = end;
    end += (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  };
  const int64_t sums_bytes = plan.splits * tokens * rotated.out_features * int64_t{sizeof(float)};
  Workspace workspace{};
  workspace.rotated = reserve(tokens * rotated.in_features * 2);
  workspace.token_factors = reserve(tokens * int64_t{sizeof(float)});
  workspace.products = reserve(sums_bytes);
  workspace.sparse_sums = reserve(rotated.sparse.offsets == nullptr ? 0 : sums_bytes);
  workspace.bytes = end;
  return workspace;
}

}  // namespace

size_t trellis_workspace_bytes(const Weight& weight, int64_t tokens, const Device& device) {
  const Weight rotated = rotated_weight(weight);
  return make_workspace(rotated, tokens, make_plan(rotated, tokens, device)).bytes;
}

void linear_trellis(const LinearArguments& arguments, const Device& device) {
  const Weight& weight = arguments.weight;
  const Launch launch = find_trellis_launch(weight);
  if (launch == nullptr) throw std::invalid_argument("no kernel for " + std::to_string(weight.bits) + " bits");

  LinearArguments product = arguments;
  product.weight = rotated_weight(weight);
  const Plan plan = make_plan(product.weight, arguments.tokens, device);
  const Workspace places = make_workspace(product.weight, arguments.tokens, plan);
  auto* const workspace = static_cast<uint8_t*>(arguments.workspace);
  auto* const token_factors = reinterpret_cast<float*>(workspace + places.token_factors);
  auto* const products = reinterpret_cast<float*>(workspace + places.products);
  auto* const sparse_sums =
      weight.sparse.offsets == nullptr ? nullptr : reinterpret_cast<float*>(workspace + places.sparse_sums);

  product.x = workspace + places.rotated;
  rotate_inputs({weight, arguments.x, arguments.x_dtype, arguments.tokens, TrellisOrder::kFragments,
                 workspace + places.rotated, product.weight.in_features, token_factors},
                device);

  LinearParameters parameters = make_parameters(product, plan);
  parameters.tile_bytes =
      static_cast<int>(pad_to_trellis_tile(weight.in_features) / kTrellisTile) * trellis_tile_bytes(weight.bits);
  parameters.partials = products;
  parameters.sparse_x = arguments.x;
  parameters.sparse_in_features = weight.in_features;
  parameters.sparse_x_dtype = arguments.x_dtype;
  parameters.sparse_partials = sparse_sums;
  launch(plan, parameters, device.stream);
  check_launch("the linear kernel");

  finish_outputs({weight, products, plan.splits, arguments.tokens, TrellisOrder::kFragments, token_factors, sparse_sums,
                  plan.splits, arguments.bias, arguments.bias_dtype, arguments.y, arguments.x_dtype},
                 device);
}

}  // namespace requant::cuda
