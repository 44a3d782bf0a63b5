// The end of a CTA: dense sums of all its warps, the sparse part, the bias, and y.
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/sparse.cuh"

namespace requant::cuda {

__device__ __forceinline__ void store_number(void* numbers, Dtype dtype, int64_t index, float value) {
  static_cast<uint16_t*>(numbers)[index] = narrow(value, dtype);
}

// Adds the sums of the warps that share a row, in order, and hands every sum to store(place in [tokens, out_features],
// row, sum). value(token_tile, element) is the calling lane's fragment; the sums of one warp stand as [tokens][16
// rows], padded, in `shared`, which all have left.
template <int kTokenTiles, class Value, class Store>
__device__ __forceinline__ void add_warps(const LinearParameters& p, float* shared, Value value, Store store) {
  using Shape = CtaShape<kTokenTiles>;
  constexpr int kWarpSums = Shape::kTokens * kSumsRowLength;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
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
  for (int index = threadIdx.x; index < Shape::kRows * tokens; index += kThreads) {
    const int row = index % Shape::kRows, token = index / Shape::kRows;
    if (first_row + row >= p.weight.out_features) continue;
    const float* warp_sums = shared + row / 16 * Shape::kInputWarps * kWarpSums + token * kSumsRowLength + row % 16;
    float sum = 0;
#pragma unroll
    for (int input_warp = 0; input_warp < Shape::kInputWarps; ++input_warp) sum += warp_sums[input_warp * kWarpSums];
    store((first_token + token) * p.weight.out_features + first_row + row, first_row + row, sum);
  }
}

// Writes rows of y, or of this split's partial sums. value(token_tile, element) is the calling lane's fragment of the
// dense sums.
template <class Weights, int kTokenTiles, class Value>
__device__ __forceinline__ void write_sums(const LinearParameters& p, float* shared, float* sparse_sums, Value value) {
  const int lane = threadIdx.x % kWarpLanes;
  const bool sparse = p.weight.sparse.offsets != nullptr;
  if (sparse) finish_sparse_sums(sparse_sums, p.token_slots_log2, lane);
  float fragment[kTokenTiles][4], sparse_fragment[Weights::kRotated ? kTokenTiles : 1][4];
#pragma unroll
  for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = lane / 4 + element / 2 * 8, token = token_tile * kTokensPerTile + lane % 4 * 2 + element % 2;
      const bool has_sum = sparse && token < 1 << p.token_slots_log2;
      const float sparse_sum = has_sum ? sparse_sums[row * kWarpLanes + token] : 0.0f;
      fragment[token_tile][element] = value(token_tile, element);
      if constexpr (Weights::kRotated) {
        sparse_fragment[token_tile][element] = sparse_sum;
      } else {
        fragment[token_tile][element] += sparse_sum;
      }
    }
  }
  __syncthreads();  // all have read x and their sparse sums for the last time
  const int64_t split_begin = static_cast<int64_t>(blockIdx.z) * p.tokens * p.weight.out_features;
  const auto dense = [&](int token_tile, int element) { return fragment[token_tile][element]; };
  if constexpr (Weights::kRotated) {
    add_warps<kTokenTiles>(p, shared, dense,
                           [&](int64_t place, int64_t, float sum) { p.partials[split_begin + place] = sum; });
    if (!sparse) return;
    __syncthreads();
    add_warps<kTokenTiles>(
        p, shared, [&](int token_tile, int element) { return sparse_fragment[token_tile][element]; },
        [&](int64_t place, int64_t, float sum) { p.sparse_partials[split_begin + place] = sum; });
  } else {
    add_warps<kTokenTiles>(p, shared, dense, [&](int64_t place, int64_t row, float sum) {
      if (p.partials != nullptr) {
        p.partials[split_begin + place] = sum;
      } else {
        if (p.bias != nullptr) sum += number_of(load_number(p.bias, p.bias_dtype, row), p.bias_dtype);
        store_number(p.y, Numbers<typename Weights::Number>::kDtype, place, sum);
      }
    });
  }
}

}  // namespace requant::cuda
