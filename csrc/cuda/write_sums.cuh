// The end of a CTA: dense sums of all its warps, the sparse part, the bias, and y.
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/sparse.cuh"

namespace requant::cuda {

__device__ __forceinline__ void store_number(void* numbers, Dtype dtype, int64_t index, float value) {
  static_cast<uint16_t*>(numbers)[index] = narrow(value, dtype);
}

// Adds the sums of the warps that share a row, in order, and writes rows of y, or of this split's partial sums.
// value(token_tile, element) is the calling lane's
// fragment; the sums of one warp stand as [tokens][16 rows], padded.
template <class Weights, int kTokenTiles, class Value>
__device__ __forceinline__ void write_sums(const LinearParameters& p, float* shared, float* sparse_sums, Value value) {
  using Shape = CtaShape<kTokenTiles>;
  constexpr int kWarpSums = Shape::kTokens * kSumsRowLength;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const bool sparse = p.weight.sparse.offsets != nullptr;
  float fragment[kTokenTiles][4];
  if (sparse) finish_sparse_sums(sparse_sums, p.token_slots_log2, lane);
#pragma unroll
  for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = lane / 4 + element / 2 * 8, token = token_tile * kTokensPerTile + lane % 4 * 2 + element % 2;
      const bool has_sum = sparse && token < 1 << p.token_slots_log2;
      fragment[token_tile][element] =
          value(token_tile, element) + (has_sum ? sparse_sums[row * kWarpLanes + token] : 0.0f);
    }
  }
  __syncthreads();  // all have read x and their sparse sums for the last time
#pragma unroll
  for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = lane / 4 + element / 2 * 8, token = token_tile * kTokensPerTile + lane % 4 * 2 + element % 2;
      shared[warp * kWarpSums + token * kSumsRowLength + row] = fragment[token_tile][element];
    }
  }
  __syncthreads();
  const int first_token = blockIdx.x * Shape::kTokens;
  const int tokens = min(p.tokens - first_token, Shape::kTokens);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * Shape::kRows;
  for (int index = threadIdx.x; index < Shape::kRows * tokens; index += kThreads) {
    const int row = index % Shape::kRows, token = index / Shape::kRows;
    if (first_row + row >= p.weight.out_features) continue;
    const float* warp_sums = shared + row / 16 * Shape::kInputWarps * kWarpSums + token * kSumsRowLength + row % 16;
    float sum = 0;
#pragma unroll
    for (int input_warp = 0; input_warp < Shape::kInputWarps; ++input_warp) sum += warp_sums[input_warp * kWarpSums];
    const int64_t place = (first_token + token) * p.weight.out_features + first_row + row;
    if (gridDim.z > 1) {
      p.partials[blockIdx.z * (p.tokens * p.weight.out_features) + place] = sum;
    } else {
      if (p.bias != nullptr) sum += number_of(load_number(p.bias, p.bias_dtype, first_row + row), p.bias_dtype);
      store_number(p.y, Numbers<typename Weights::Number>::kDtype, place, sum);
    }
  }
}

// y from the partial sums of all splits, in order.
__global__ void add_splits_kernel(const float* partials, int splits, int64_t tokens, int64_t out_features,
                                  const void* bias, Dtype bias_dtype, void* y, Dtype y_dtype);

}  // namespace requant::cuda
