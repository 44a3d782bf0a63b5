// The end of a CTA: dense sums of all its warps, the sparse part, the bias, and y.
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/sparse.cuh"

namespace requant::cuda {

__device__ __forceinline__ void store_number(void* numbers, Dtype dtype, int64_t index, float value) {
  static_cast<uint16_t*>(numbers)[index] = narrow(value, dtype);
}

// Writes rows of y, or of this split's partial sums: those of the warps that share a row, added in order.
// value(token_tile, element) is the calling lane's fragment of the dense sums. Those of one warp stand as
// [tokens][16 rows], padded, at the beginning of `shared`. Totals of the sparse sums of all warps lie at `sparse_sums`,
// behind them.
template <class Weights, class Shape, class Value>
__device__ __forceinline__ void write_sums(const LinearParameters& p, float* shared, const float* sparse_sums,
                                           Value value) {
  constexpr int kWarpSums = Shape::kTokens * kSumsRowLength;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const bool sparse = p.weight.sparse.offsets != nullptr;
  __syncthreads();  // all have read codes and x for the last time
#pragma unroll
  for (int token_tile = 0; token_tile < Shape::kTokenTiles; ++token_tile) {
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = lane / 4 + element / 2 * 8, token = token_tile * kTokensPerTile + lane % 4 * 2 + element % 2;
      shared[warp * kWarpSums + token * kSumsRowLength + row] = value(token_tile, element);
    }
  }
  __syncthreads();
  const int first_token = blockIdx.x * Shape::kTokens;
  const int tokens = min(p.tokens - first_token, Shape::kTokens);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * Shape::kRows;
  const int64_t split_begin = static_cast<int64_t>(blockIdx.z) * p.tokens * p.weight.out_features;
  for (int index = threadIdx.x; index < Shape::kRows * tokens; index += kThreads) {
    const int row_in_cta = index % Shape::kRows, token = index / Shape::kRows;
    const int64_t row = first_row + row_in_cta;
    if (row >= p.weight.out_features) continue;
    const int first_warp = row_in_cta / 16 * Shape::kInputWarps, row_in_tile = row_in_cta % 16;
    const float* dense_part = shared + first_warp * kWarpSums + token * kSumsRowLength + row_in_tile;
    const float* sparse_part = sparse_sums + first_warp * kSparseSums + row_in_tile * kWarpLanes + token;
    float sum = 0, sparse_sum = 0;
#pragma unroll
    for (int input_warp = 0; input_warp < Shape::kInputWarps; ++input_warp) {
      sum += dense_part[input_warp * kWarpSums];
      if (sparse) sparse_sum += sparse_part[input_warp * kSparseSums];
    }
    const int64_t place = (first_token + token) * p.weight.out_features + row;
    if constexpr (Weights::kRotated) {
      p.partials[split_begin + place] = sum;
      if (sparse) p.sparse_partials[split_begin + place] = sparse_sum;
    } else {
      sum += sparse_sum;
      if (p.partials != nullptr) {
        p.partials[split_begin + place] = sum;
      } else {
        if (p.bias != nullptr) sum += number_of(load_number(p.bias, p.bias_dtype, row), p.bias_dtype);
        store_number(p.y, Numbers<typename Weights::Number>::kDtype, place, sum);
      }
    }
  }
}

}  // namespace requant::cuda
