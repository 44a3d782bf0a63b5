// Elements of tensors whose dtype is known at compile time (class Element) or only at run time (Dtype).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/dtype.h"

namespace requant::cuda {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class Element>
__device__ Element round_to(float value);
template <>
__device__ inline float round_to<float>(float value) {
  return value;
}
template <>
__device__ inline __half round_to<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 round_to<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Element `index` of a tensor. The branch is the same for all threads.
__device__ inline float load_float(const void* tensor, Dtype dtype, int64_t index) {
  switch (dtype) {
    case Dtype::kFloat32:
      return static_cast<const float*>(tensor)[index];
    case Dtype::kFloat16:
      return to_float(static_cast<const __half*>(tensor)[index]);
    default:
      return to_float(static_cast<const __nv_bfloat16*>(tensor)[index]);
  }
}

// A 16-bit float given by its bits.
__device__ inline float float_from_bits(uint16_t bits, Dtype dtype) {
  return dtype == Dtype::kFloat16 ? to_float(__ushort_as_half(bits)) : to_float(__ushort_as_bfloat16(bits));
}

}  // namespace requant::cuda
