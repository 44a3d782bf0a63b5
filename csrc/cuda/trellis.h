// The stages around the product with C of a weight of format `trellis`,
//
//   W = diag(output_signs) H diag(scale) C H diag(input_signs) + S
//
//   rotate    x -> H (input_signs x), in fp16, every token over a power of two of its own
//   multiply  by C times trellis_unit: `linear` by its own kernel, callers with many tokens by `dequantize` and a
//             matrix product of theirs
//   finish    -> output_signs H (scale / trellis_unit ...) times that power of two + S x + bias = y
#pragma once

#include "cuda/arguments.h"

namespace requant::cuda {

constexpr int64_t pad_to_trellis_tile(int64_t size) { return (size + kTrellisTile - 1) / kTrellisTile * kTrellisTile; }

// C is multiplied by this, which makes its values of code 1mad exact in fp16.
constexpr float trellis_unit(TrellisCode code) { return code == TrellisCode::k1mad ? 147.800537109375f / 128 : 1; }

// The order in which rotated inputs are stored and products arrive. In `kFragments`, a lane of the matrix product finds
// the values of whole rows of tiles: of 64 inputs, tile t belongs to lanes t of mma.m16n8k16, four columns for every of
// its four products; of 16 rows, 2 g and 2 g + 1 belong to lanes 4 g ..< 4 g + 4.
//
//   16 inputs of product j      slots 2 t, 2 t + 1, 2 t + 8, 2 t + 9  =  columns 4 j ..< 4 j + 4 of tile t
//   16 rows                     slots g, g + 8                        =  rows 2 g, 2 g + 1
enum class TrellisOrder : int { kPlain = 0, kFragments = 1 };

struct RotateArguments {
  Weight weight;
  const void* x;  // [tokens, in_features]
  Dtype x_dtype;  // fp16 or bf16
  int64_t tokens;
  TrellisOrder order;
  void* rotated;         // fp16 [tokens, stride]
  int64_t stride;        // a multiple of 4, at least in_features padded to 16; elements behind those are set to zero
  float* token_factors;  // [tokens]: what the products with a token must be multiplied with
};

// Products in the order of fragments are fp32 [splits, tokens, out_features padded to 16], and splits are summed in
// order; in plain order they are fp16 [tokens, out_features padded to 16].
struct FinishArguments {
  Weight weight;
  const void* products;
  int splits;
  int64_t tokens;
  TrellisOrder order;
  const float* token_factors;
  const float* sparse_sums;  // [sparse_splits, tokens, out_features padded to 16] in plain order, or null
  int sparse_splits;
  const void* bias;  // [out_features] or null
  Dtype bias_dtype;
  void* y;        // [tokens, out_features]
  Dtype y_dtype;  // fp16 or bf16
};

struct SparseProductArguments {
  Weight weight;
  const void* x_transposed;  // [in_features, token_stride]
  Dtype x_dtype;             // fp16 or bf16
  int64_t tokens;
  int64_t token_stride;  // even
  float* sums;           // [tokens, out_features padded to 16]
};

// S x, for many tokens.
void trellis_sparse_products(const SparseProductArguments& arguments, const Device& device);

// `dequantize` for format trellis. Values of C are rounded to fp16, as in all kernels.
void trellis_rows(const DequantizeArguments& arguments, const Device& device);

// One launch each. Throw std::runtime_error with CUDA's own words if it fails, std::invalid_argument for padded sizes
// that exceed 8192 times their power of two, or 8192 * 1024.
void rotate_inputs(const RotateArguments& arguments, const Device& device);
void finish_outputs(const FinishArguments& arguments, const Device& device);

}  // namespace requant::cuda
