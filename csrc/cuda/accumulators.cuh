// Sums in registers: products of small exact integers with x within a group of inputs, scaled when the group ends.
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

// What scales a format has: none; 16-bit ones for groups of whole spans, the usual case; or anything else, that is fp32
// or groups of any multiple of 32 inputs.
enum class Groups { kNone, kSpans, kAny };

// Where the scales and zeros of a lane's rows g and g + 8 (g = lane / 4) are.
template <class Weights>
struct LaneScales {
  const uint8_t* scale;
  const uint8_t* zero;

  __device__ __forceinline__ LaneScales(const LinearParameters& p, int64_t tile, int lane) {
    const int64_t byte = (tile * p.groups * 16 + lane / 4) << p.scale_bytes_log2;
    scale = keep(static_cast<const uint8_t*>(p.weight.scale) + byte);
    if constexpr (Weights::kHasZero) zero = keep(static_cast<const uint8_t*>(p.weight.zero) + byte);
  }
};

// Scale and zero of rows g and g + 8 for one group, as raw bits until they are needed.
template <class Weights>
struct GroupScales {
  uint32_t scale[2];
  uint32_t zero[2];

  __device__ __forceinline__ void load(const LinearParameters& p, const LaneScales<Weights>& lane, uint32_t input) {
    const uint32_t group = __umulhi(input, p.group_multiplier);  // input / group_size (linear.cu)
    if constexpr (Weights::kGroups == Groups::kSpans) {
      load_as<uint16_t>(lane, group);
    } else {
      const uint32_t present = min(group, p.groups - 1u);  // a span may end beyond the last group
      if (p.weight.scale_dtype == Dtype::kFloat32) {
        load_as<uint32_t>(lane, present);
      } else {
        load_as<uint16_t>(lane, present);
      }
    }
  }

  // As numbers in the place of the bits, all at once: one look at the dtype.
  __device__ __forceinline__ void convert(Dtype dtype) {
    if (dtype == Dtype::kFloat16) {
      convert_by([](uint32_t raw) { return __float_as_uint(Numbers<__half>::to_float(raw)); });
    } else if (Weights::kGroups == Groups::kSpans || dtype == Dtype::kBFloat16) {
      convert_by([](uint32_t raw) { return raw << 16; });
    }
  }

 private:
  template <class Raw>
  __device__ __forceinline__ void load_as(const LaneScales<Weights>& lane, uint32_t group) {
    const uint64_t byte = uint64_t{group} * (16 * sizeof(Raw));
    const Raw* scales = reinterpret_cast<const Raw*>(lane.scale + byte);
    scale[0] = __ldg(scales);
    scale[1] = __ldg(scales + 8);
    if constexpr (Weights::kHasZero) {
      const Raw* zeros = reinterpret_cast<const Raw*>(lane.zero + byte);
      zero[0] = __ldg(zeros);
      zero[1] = __ldg(zeros + 8);
    }
  }

  template <class Convert>
  __device__ __forceinline__ void convert_by(Convert convert) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scale[half] = convert(scale[half]);
      if constexpr (Weights::kHasZero) zero[half] = convert(zero[half]);
    }
  }
};

// Elements 0 and 1 of a fragment belong to row g and tokens 2 t, 2 t + 1 (t = lane % 4), elements 2 and 3 to row g + 8.
template <class Weights, int kTokenTiles>
class Accumulators {
 public:
  using Type = Numbers<typename Weights::Number>;

  __device__ __forceinline__ void clear() {
    clear_group();
    if constexpr (Weights::kHasZero) {
#pragma unroll
      for (int i = 0; i < 4; ++i) ones_[i] = keep_constant(Type::kOnes, i);
    }
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int element = 0; element < 4; ++element) totals_[tile][element] = 0;
    }
  }

  // One product of 16 rows, 16 inputs and 8 tokens.
  __device__ __forceinline__ void add(int tile, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Type::multiply_tile(products_[tile], a, b0, b1);
    if constexpr (Weights::kHasZero) {
      Type::multiply_tile(inputs_[tile], ones_, b0, b1);
    }
  }

  // totals += scale * (products - (zero - middle) * inputs)
  __device__ __forceinline__ void end_group(GroupScales<Weights>& scales, Dtype dtype) {
    scales.convert(dtype);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = __uint_as_float(scales.scale[half]);
      float zero = 0;
      if constexpr (Weights::kHasZero) zero = __uint_as_float(scales.zero[half]) - Weights::kMiddle;
#pragma unroll
      for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
        for (int element = 2 * half; element < 2 * half + 2; ++element) {
          float sum = products_[tile][element];
          if constexpr (Weights::kHasZero) sum = fmaf(-zero, inputs_[tile][element], sum);
          totals_[tile][element] = fmaf(scale, sum, totals_[tile][element]);
        }
      }
    }
    clear_group();
  }

  __device__ __forceinline__ float total(int tile, int element, float row_scale) const {
    return (Weights::kGroups != Groups::kNone ? totals_ : products_)[tile][element] * row_scale;
  }

 private:
  __device__ __forceinline__ void clear_group() {
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int element = 0; element < 4; ++element) products_[tile][element] = inputs_[tile][element] = 0;
    }
  }

  float products_[kTokenTiles][4];  // over the group so far
  float inputs_[kTokenTiles][4];    // x over the group so far: what `zero` is multiplied with
  float totals_[kTokenTiles][4];
  uint32_t ones_[4];  // operand A whose product is the sum of x
};

}  // namespace requant::cuda
