// The two ends of a layer of format `trellis`: Hadamard transforms of its inputs and outputs (trellis.h).
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "cuda/check_launch.h"
#include "cuda/hadamard.cuh"
#include "cuda/primitives.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {
namespace {

// |x| times a token's power of two stays below 2^kRangeLog2 / n. Then no value of H x exceeds the range of fp16, and no
// product with a row of C whose root mean square is below 8, so that products may be rounded to fp16, too. At the other
// end, the values' root mean square is above 2^-12 for any x and n <= 2^16, 2^12 times the smallest number of fp16.
constexpr int kRangeLog2 = 13;

constexpr int kExponentBias = 127;
constexpr int kFloatMantissaBits = 23;

__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + kExponentBias) << kFloatMantissaBits);
}

template <class Number>
struct RotateStage {
  const uint16_t* x;
  const int8_t* signs;
  int in_features;
  bool aligned;  // four neighbours of x, and of signs, may be read at once
  TrellisOrder order;
  __half* rotated;
  int in_padded;
  int stride;
  int size_log2;  // rounded up
  float* token_factors;

  class Vector {
   public:
    __device__ Vector(const RotateStage& stage, int64_t token)
        : stage_(stage), token_(token), x_(stage.x + token * stage.in_features) {}

    __device__ float4 load(int index) {
      uint2 raw = {};
      uint32_t signs = 0;  // bit 7 of every byte
      if (stage_.aligned) {
        if (index < stage_.in_features) {
          raw = __ldg(reinterpret_cast<const uint2*>(x_ + index));
          signs = __ldg(reinterpret_cast<const uint32_t*>(stage_.signs + index));
        }
      } else {
        const int present = min(stage_.in_features - index, kElements);
        if (present > 0) raw.x = __ldg(x_ + index), signs = sign(index);
        if (present > 1) raw.x |= __ldg(x_ + index + 1) << 16, signs |= sign(index + 1) << 8;
        if (present > 2) raw.y = __ldg(x_ + index + 2), signs |= sign(index + 2) << 16;
        if (present > 3) raw.y |= __ldg(x_ + index + 3) << 16, signs |= sign(index + 3) << 24;
      }
      constexpr uint32_t kSignBits = 0x80008000;
      raw.x ^= select_bytes(signs, 0, 0x1404) & kSignBits;
      raw.y ^= select_bytes(signs, 0, 0x3424) & kSignBits;
      const float4 values = {low(raw.x), high(raw.x), low(raw.y), high(raw.y)};
      largest_ =
          fmaxf(fmaxf(largest_, fmaxf(fabsf(values.x), fabsf(values.y))), fmaxf(fabsf(values.z), fabsf(values.w)));
      return values;
    }

    __device__ void before_barrier() {
      for (int half = kWarpLanes / 2; half > 0; half /= 2) {
        largest_ = fmaxf(largest_, __shfl_xor_sync(kAllLanes, largest_, half));
      }
      if (threadIdx.x % kWarpLanes == 0) shared_largest()[threadIdx.x / kWarpLanes] = largest_;
    }

    __device__ void after_barrier() {
#pragma unroll
      for (int warp = 0; warp < kHadamardWarps; ++warp) largest_ = fmaxf(largest_, shared_largest()[warp]);
      // |x| < 2^(exponent + 1). Infinity counts as 2^128, NaN not at all: both stay what they are.
      const int exponent = static_cast<int>(__float_as_uint(largest_) >> kFloatMantissaBits) - kExponentBias;
      const int wanted = kRangeLog2 - stage_.size_log2 - exponent - 1;
      const int shift = max(min(wanted, kExponentBias - 1), 1 - kExponentBias);
      factor_ = power_of_two(shift);
      if (blockIdx.y == 0 && threadIdx.x == 0) stage_.token_factors[token_] = power_of_two(-shift);
      const int behind = stage_.in_padded + kElements * static_cast<int>(threadIdx.x);
      if (blockIdx.y == 0 && behind < stage_.stride) store(behind, {});
    }

    __device__ void store(int index, float4 values) {
      const __half2 pairs[2] = {__floats2half2_rn(values.x * factor_, values.y * factor_),
                                __floats2half2_rn(values.z * factor_, values.w * factor_)};
      __half* const row = stage_.rotated + token_ * stage_.stride;
      if (stage_.order == TrellisOrder::kFragments) {
        const int tile = index / kTrellisTile % 4, product = index % kTrellisTile / kElements;
        __half* const slots = row + index / 64 * 64 + product * 16 + 2 * tile;
        *reinterpret_cast<__half2*>(slots) = pairs[0];
        *reinterpret_cast<__half2*>(slots + 8) = pairs[1];
      } else {
        *reinterpret_cast<uint2*>(row + index) = *reinterpret_cast<const uint2*>(pairs);
      }
    }

   private:
    __device__ static float low(uint32_t pair) { return Numbers<Number>::to_float(static_cast<uint16_t>(pair)); }
    __device__ static float high(uint32_t pair) { return Numbers<Number>::to_float(static_cast<uint16_t>(pair >> 16)); }
    __device__ uint32_t sign(int index) const { return static_cast<uint8_t>(__ldg(stage_.signs + index)); }
    // [warps]
    __device__ static float* shared_largest() {
      __shared__ float largest[kHadamardWarps];
      return largest;
    }

    const RotateStage& stage_;
    int64_t token_;
    const uint16_t* x_;
    float largest_ = 0;  // |x|
    float factor_ = 0;
  };
};

struct FinishStage {
  const void* products;
  int splits;
  int64_t split_stride;
  TrellisOrder order;
  const void* scale;
  Dtype scale_dtype;
  float unit_factor;
  const float* token_factors;
  const float* sparse_sums;
  int sparse_splits;
  const int8_t* signs;
  int out_features;
  int out_padded;
  const void* bias;
  Dtype bias_dtype;
  uint16_t* y;
  Dtype y_dtype;

  class Vector {
   public:
    __device__ Vector(const FinishStage& stage, int64_t token) : stage_(stage), token_(token) {}

    __device__ float4 load(int row) {
      float sums[kElements] = {};
      const int64_t place = token_ * stage_.out_padded + row;
      if (stage_.order == TrellisOrder::kFragments) {
        const int in_tile = row % kTrellisTile;
        const float* slots = static_cast<const float*>(stage_.products) + place - in_tile + in_tile / 2;
        for (int split = 0; split < stage_.splits; ++split, slots += stage_.split_stride) {
          const float2 even = __ldg(reinterpret_cast<const float2*>(slots));
          const float2 odd = __ldg(reinterpret_cast<const float2*>(slots + 8));
          add(sums, {even.x, odd.x, even.y, odd.y});
        }
      } else {
        const uint2 four = __ldg(reinterpret_cast<const uint2*>(static_cast<const __half*>(stage_.products) + place));
        const float2 first = __half22float2(*reinterpret_cast<const __half2*>(&four.x));
        const float2 second = __half22float2(*reinterpret_cast<const __half2*>(&four.y));
        add(sums, {first.x, first.y, second.x, second.y});
      }
      const float4 scale = load_scale(row);
      return {sums[0] * scale.x, sums[1] * scale.y, sums[2] * scale.z, sums[3] * scale.w};
    }

    __device__ void before_barrier() {}
    __device__ void after_barrier() { factor_ = stage_.unit_factor * __ldg(stage_.token_factors + token_); }

    __device__ void store(int row, float4 values) {
      float sparse[kElements] = {};
      const float* sums = stage_.sparse_sums + token_ * stage_.out_padded + row;
      for (int split = 0; split < stage_.sparse_splits; ++split, sums += stage_.split_stride) {
        add(sparse, __ldg(reinterpret_cast<const float4*>(sums)));
      }
      const float rotated[kElements] = {values.x, values.y, values.z, values.w};
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        if (row + i >= stage_.out_features) break;
        const float factor = __ldg(stage_.signs + row + i) < 0 ? -factor_ : factor_;
        float value = fmaf(rotated[i], factor, sparse[i]);
        if (stage_.bias != nullptr) {
          value += number_of(load_number(stage_.bias, stage_.bias_dtype, row + i), stage_.bias_dtype);
        }
        stage_.y[token_ * stage_.out_features + row + i] = narrow(value, stage_.y_dtype);
      }
    }

   private:
    __device__ float4 load_scale(int row) const {
      if (stage_.scale_dtype == Dtype::kFloat32) {
        return __ldg(reinterpret_cast<const float4*>(static_cast<const float*>(stage_.scale) + row));
      }
      const uint2 four = __ldg(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(stage_.scale) + row));
      const Dtype dtype = stage_.scale_dtype;
      return {number_of(four.x & 0xffff, dtype), number_of(four.x >> 16, dtype), number_of(four.y & 0xffff, dtype),
              number_of(four.y >> 16, dtype)};
    }

    __device__ static void add(float (&sums)[kElements], float4 other) {
      sums[0] += other.x;
      sums[1] += other.y;
      sums[2] += other.z;
      sums[3] += other.w;
    }

    const FinishStage& stage_;
    int64_t token_;
    float factor_ = 0;
  };
};

HadamardShape hadamard_shape(int64_t size) {
  const int64_t power = size & -size, inner = power < kMaxInner ? power : kMaxInner, outer = size / inner;
  if (outer > kMaxFactors) {
    throw std::invalid_argument("trellis: padded sizes over their power of two, or over 1024, must not exceed " +
                                std::to_string(kMaxFactors) + ", got " + std::to_string(outer) + " of " +
                                std::to_string(size));
  }
  const int64_t rows = std::min<int64_t>(kMaxInner / inner, kMaxFactors / outer);
  return {static_cast<int>(size / power), static_cast<int>(outer), static_cast<int>(inner), static_cast<int>(rows),
          static_cast<float>(1 / std::sqrt(static_cast<double>(size)))};
}

template <int kRows, class Stage>
void launch_with_rows(const HadamardShape& shape, const Stage& stage, int64_t vectors, const Device& device) {
  const int rows = kRows * shape.rows_at_once;  // of a CTA
  const dim3 grid(static_cast<unsigned>(vectors), static_cast<unsigned>((shape.outer + rows - 1) / rows));
  const size_t factors_bytes = sizeof(float) * rows * shape.outer;
  hadamard_kernel<kRows>
      <<<grid, kHadamardThreads, factors_bytes, static_cast<cudaStream_t>(device.stream)>>>(shape, stage);
}

// More rows for every thread read x less often, but make fewer CTAs.
constexpr int kManyRows = 4;
constexpr int kManyCtas = 8;  // per multiprocessor

template <class Stage>
void launch(const HadamardShape& shape, const Stage& stage, int64_t vectors, const Device& device) {
  const int64_t ctas = vectors * shape.outer / (kManyRows * shape.rows_at_once);
  // The table of factors and the columns of kManyRows rows must leave room for each other.
  const bool fits = kManyRows * shape.rows_at_once * shape.outer <= kMaxFactors / 2;
  if (fits && ctas >= kManyCtas * device.multiprocessors) {
    launch_with_rows<kManyRows>(shape, stage, vectors, device);
  } else {
    launch_with_rows<1>(shape, stage, vectors, device);
  }
}

int log2_rounded_up(int64_t value) {
  int result = 0;
  while (int64_t{1} << result < value) ++result;
  return result;
}

bool aligned_to(const void* address, size_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

template <class Number>
void rotate(const RotateArguments& arguments, const Device& device) {
  const Weight& weight = arguments.weight;
  const int8_t* signs = weight.trellis.input_signs;
  const int64_t in_padded = pad_to_trellis_tile(weight.in_features);
  const RotateStage<Number> stage{
      static_cast<const uint16_t*>(arguments.x),
      signs,
      static_cast<int>(weight.in_features),
      weight.in_features % kElements == 0 && aligned_to(arguments.x, sizeof(uint2)) &&
          aligned_to(signs, sizeof(uint32_t)),
      arguments.order,
      static_cast<__half*>(arguments.rotated),
      static_cast<int>(in_padded),
      static_cast<int>(arguments.stride),
      log2_rounded_up(in_padded),
      arguments.token_factors,
  };
  launch(hadamard_shape(in_padded), stage, arguments.tokens, device);
}

}  // namespace

void rotate_inputs(const RotateArguments& arguments, const Device& device) {
  if (arguments.x_dtype == Dtype::kFloat16) {
    rotate<__half>(arguments, device);
  } else {
    rotate<__nv_bfloat16>(arguments, device);
  }
  check_launch("rotate_inputs");
}

void finish_outputs(const FinishArguments& arguments, const Device& device) {
  const Weight& weight = arguments.weight;
  const int64_t out_padded = pad_to_trellis_tile(weight.out_features);
  const FinishStage stage{
      arguments.products,
      arguments.splits,
      arguments.tokens * out_padded,
      arguments.order,
      weight.scale,
      weight.scale_dtype,
      1 / trellis_unit(weight.trellis.code),
      arguments.token_factors,
      arguments.sparse_sums,
      arguments.sparse_sums == nullptr ? 0 : arguments.sparse_splits,
      weight.trellis.output_signs,
      static_cast<int>(weight.out_features),
      static_cast<int>(out_padded),
      arguments.bias,
      arguments.bias_dtype,
      static_cast<uint16_t*>(arguments.y),
      arguments.y_dtype,
  };
  launch(hadamard_shape(out_padded), stage, arguments.tokens, device);
  check_launch("finish_outputs");
}

}  // namespace requant::cuda
