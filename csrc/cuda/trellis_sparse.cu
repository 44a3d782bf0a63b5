// S x for many tokens of a weight of format `trellis`, whose D is multiplied in another basis.
//
// x is transposed, so that a warp reads what one entry is multiplied with, an input of 64 tokens, at once: two tokens a
// lane. Every warp adds to sums of its own:
//
//   sums [16 rows][32 lanes][2 tokens]
#include "cuda/check_launch.h"
#include "cuda/primitives.cuh"
#include "cuda/sparse.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {
namespace {

constexpr int kSparseWarps = 4;
constexpr int kTokensPerLane = 2;
constexpr int kTokensPerWarp = kTokensPerLane * kWarpLanes;
constexpr int kTokensPerThreadBlock = kTokensPerWarp * kSparseWarps;

template <class Number>
__global__ void __launch_bounds__(kSparseWarps* kWarpLanes) trellis_sparse_kernel(SparseProductArguments arguments) {
  __shared__ float2 shared_sums[kSparseWarps][kTrellisTile][kWarpLanes];
  const SparseIndex& sparse = arguments.weight.sparse;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  float2(&sums)[kTrellisTile][kWarpLanes] = shared_sums[warp];
#pragma unroll
  for (int row = 0; row < kTrellisTile; ++row) sums[row][lane] = {};

  const int64_t tile = blockIdx.y;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kTokensPerThreadBlock + warp * kTokensPerWarp + 2 * lane;
  if (token >= arguments.tokens) return;
  const int slices = static_cast<int>((arguments.weight.in_features + kSliceInputs - 1) / kSliceInputs);
  const uint32_t* const offsets = sparse.offsets + tile * slices;
  const uint16_t* const x = static_cast<const uint16_t*>(arguments.x_transposed) + token;
  uint32_t index = __ldg(offsets);
  for (int slice = 0; slice < slices; ++slice) {
    const uint32_t end = __ldg(offsets + slice + 1);
#pragma unroll 4
    for (; index < end; ++index) {
      const uint32_t entry = __ldg(sparse.entries + index);
      const int64_t input = slice * kSliceInputs + entry % kSliceInputs;
      const uint32_t pair = __ldg(reinterpret_cast<const uint32_t*>(x + input * arguments.token_stride));
      const float value = number_of(entry >> kEntryValueShift, sparse.value_dtype);
      float2& sum = sums[entry >> kEntryRowShift & 15][lane];
      sum.x = fmaf(value, Numbers<Number>::to_float(static_cast<uint16_t>(pair)), sum.x);
      sum.y = fmaf(value, Numbers<Number>::to_float(static_cast<uint16_t>(pair >> 16)), sum.y);
    }
  }
  const int64_t out_padded = gridDim.y * static_cast<int64_t>(kTrellisTile);
  float* const place = arguments.sums + token * out_padded + tile * kTrellisTile;
#pragma unroll
  for (int row = 0; row < kTrellisTile; ++row) {
    place[row] = sums[row][lane].x;
    if (token + 1 < arguments.tokens) place[out_padded + row] = sums[row][lane].y;
  }
}

}  // namespace

void trellis_sparse_products(const SparseProductArguments& arguments, const Device& device) {
  const dim3 grid(static_cast<unsigned>((arguments.tokens + kTokensPerThreadBlock - 1) / kTokensPerThreadBlock),
                  static_cast<unsigned>(pad_to_trellis_tile(arguments.weight.out_features) / kTrellisTile));
  const auto stream = static_cast<cudaStream_t>(device.stream);
  if (arguments.x_dtype == Dtype::kFloat16) {
    trellis_sparse_kernel<__half><<<grid, kSparseWarps * kWarpLanes, 0, stream>>>(arguments);
  } else {
    trellis_sparse_kernel<__nv_bfloat16><<<grid, kSparseWarps * kWarpLanes, 0, stream>>>(arguments);
  }
  check_launch("the sparse products");
}

}  // namespace requant::cuda
