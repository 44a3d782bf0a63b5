// Rows of diag(scale) C of format `trellis`, for matrix products with many tokens and for whole weights.
//
// A thread takes two rows of a tile: eight threads a tile.
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/check_launch.h"
#include "cuda/formats/trellis.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {
namespace {

constexpr int kRowsThreads = 128;
constexpr int kPairsPerTile = kTrellisTile / 2;
template <int kBits>
constexpr int kTileBytes = trellis_tile_bytes(kBits);

template <int kFirst, int kEnd, class Function>
__device__ __forceinline__ void for_each_pair(const Function& function) {
  if constexpr (kFirst < kEnd) {
    function(std::integral_constant<int, kFirst>{});
    for_each_pair<kFirst + 2, kEnd>(function);
  }
}

__device__ __forceinline__ void store_pair(float* place, float2 values) { *reinterpret_cast<float2*>(place) = values; }
__device__ __forceinline__ void store_pair(__half* place, float2 values) {
  *reinterpret_cast<__half2*>(place) = __float22half2_rn(values);
}
__device__ __forceinline__ void store_pair(__nv_bfloat16* place, float2 values) {
  *reinterpret_cast<__nv_bfloat162*>(place) = __float22bfloat162_rn(values);
}

template <int kBits, class Code, class Element>
__global__ void __launch_bounds__(kRowsThreads)
    trellis_rows_kernel(DequantizeArguments arguments, int64_t pairs, int64_t tiles) {
  const Weight& weight = arguments.weight;
  const Code code(weight.trellis);
  __syncthreads();
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kRowsThreads + threadIdx.x;
  if (pair >= pairs) return;
  const int64_t column_tile = pair / kPairsPerTile % tiles, row_tile = pair / kPairsPerTile / tiles;
  const int64_t tile = (arguments.row_begin / kTrellisTile + row_tile) * tiles + column_tile;
  const int g = static_cast<int>(pair % kPairsPerTile);
  TrellisRowPair<kBits> codes;
  codes.load(reinterpret_cast<const uint8_t*>(weight.codes) + tile * kTileBytes<kBits>, codes.places(g));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = row_tile * kTrellisTile + 2 * g + i;
    float factor = 1;
    if (weight.scale != nullptr) {
      const uint32_t scale = load_number(weight.scale, weight.scale_dtype, arguments.row_begin + row);
      factor = number_of(scale, weight.scale_dtype) / Code::kUnit;
    }
    Element* const place = static_cast<Element*>(arguments.w) + (row * tiles + column_tile) * kTrellisTile;
    for_each_pair<0, kTrellisTile>([&](auto column) {
      const uint32_t bits = code.template pair<column.value>(codes.rows[i]);
      const float2 values = __half22float2(*reinterpret_cast<const __half2*>(&bits));
      store_pair(place + column.value, {values.x * factor, values.y * factor});
    });
  }
}

using Kernel = void (*)(DequantizeArguments, int64_t pairs, int64_t tiles);

template <int kBits, class Code>
Kernel find_kernel(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return trellis_rows_kernel<kBits, Code, float>;
    case Dtype::kFloat16:
      return trellis_rows_kernel<kBits, Code, __half>;
    default:
      return trellis_rows_kernel<kBits, Code, __nv_bfloat16>;
  }
}

template <int kBits>
Kernel find_kernel(TrellisCode code, Dtype dtype) {
  switch (code) {
    case TrellisCode::k1mad:
      return find_kernel<kBits, OneMad>(dtype);
    case TrellisCode::k3inst:
      return find_kernel<kBits, ThreeInst>(dtype);
    default:
      return find_kernel<kBits, Hyb>(dtype);
  }
}

Kernel find_kernel(const Weight& weight, Dtype dtype) {
  switch (weight.bits) {
    case 2:
      return find_kernel<2>(weight.trellis.code, dtype);
    case 3:
      return find_kernel<3>(weight.trellis.code, dtype);
    case 4:
      return find_kernel<4>(weight.trellis.code, dtype);
    default:
      throw std::invalid_argument("trellis: no kernel for " + std::to_string(weight.bits) + " bits");
  }
}

}  // namespace

void trellis_rows(const DequantizeArguments& arguments, const Device& device) {
  const int64_t row_begin = arguments.row_begin, row_end = arguments.row_end;
  if (row_begin % kTrellisTile != 0 || row_end % kTrellisTile != 0 || row_begin < 0 || row_end <= row_begin ||
      row_end > pad_to_trellis_tile(arguments.weight.out_features)) {
    throw std::invalid_argument("dequantize: rows " + std::to_string(row_begin) + " ..< " + std::to_string(row_end) +
                                " are no tiles of the weight");
  }
  const int64_t rows = row_end - row_begin;
  const int64_t tiles = pad_to_trellis_tile(arguments.weight.in_features) / kTrellisTile;  // side by side
  const int64_t pairs = rows / 2 * tiles;
  const auto grid = static_cast<unsigned>((pairs + kRowsThreads - 1) / kRowsThreads);
  const Kernel kernel = find_kernel(arguments.weight, arguments.w_dtype);
  kernel<<<grid, kRowsThreads, 0, static_cast<cudaStream_t>(device.stream)>>>(arguments, pairs, tiles);
  check_launch("trellis_rows");
}

}  // namespace requant::cuda
