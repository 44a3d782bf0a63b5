// y = H x of any size n, the orthonormal transform of requant_kernels/formats/hadamard.py, by CTAs that need nothing
// from each other.
//
//   H_n = (Q_odd (x) H_{outer / odd}) (x) H_inner          n = outer * inner, inner a power of two up to 1024
//
// x is read as [outer, inner]. A CTA makes some rows of y. The outer factor is a small dense product over all of x, and
// the inner one a fast Walsh-Hadamard transform of each row, whose columns are spread over the CTA:
//
//   column   | bits 9..7 | bits 6..2 | bits 1..0 |          shorter rows: fewer warps, then fewer lanes; a CTA holds
//              warp        lane        element                 several of them
//
// Its stages are additions within a thread, between lanes, and, after the only barrier, between warps. The order of all
// additions depends on n alone.
#pragma once

#include <cstdint>

#include "cuda/primitives.cuh"

namespace requant::cuda {

constexpr int kHadamardThreads = 256;
constexpr int kHadamardWarps = kHadamardThreads / kWarpLanes;
constexpr int kHadamardCtas = 4;  // per multiprocessor that registers must leave room for
constexpr int kElements = 4;      // neighbouring columns of a thread
constexpr int kMaxInner = kHadamardThreads * kElements;
constexpr int kMaxOdd = 8191;  // its table fills 32 KB of shared memory

struct HadamardShape {
  int odd;
  int outer;
  int inner;
  float norm;  // n^-1/2
};

// The CTA's table of factors of Q: cos(2 pi i / odd) + sin(2 pi i / odd), over n^1/2.
__device__ __forceinline__ void fill_factors(const HadamardShape& shape, float* factors) {
  for (int i = threadIdx.x; i < shape.odd; i += kHadamardThreads) {
    const int turn = 2 * i > shape.odd ? i - shape.odd : i;  // the nearer to 0, the more exact
    float sine, cosine;
    sincospif(2 * static_cast<float>(turn) / static_cast<float>(shape.odd), &sine, &cosine);
    factors[i] = (cosine + sine) * shape.norm;
  }
}

// The Walsh-Hadamard transform over the columns of a warp.
__device__ __forceinline__ void transform_columns(float (&values)[kElements], int threads_per_row, int lane) {
#pragma unroll
  for (int half = 1; half < kElements; half *= 2) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      if (i & half) continue;
      const float first = values[i], second = values[i + half];
      values[i] = first + second;
      values[i + half] = first - second;
    }
  }
#pragma unroll
  for (int half = 1; half < kWarpLanes; half *= 2) {
    if (half >= threads_per_row) break;
    const float sign = lane & half ? -1.0f : 1.0f;
#pragma unroll
    for (float& value : values) value = fmaf(sign, value, __shfl_xor_sync(kAllLanes, value, half));
  }
}

// A Stage says what stands at the two ends of the transform of one vector, number blockIdx.x:
//
//   Stage::Vector vector(stage, blockIdx.x)
//   float4 vector.load(i)           elements i ..< i + 4, i a multiple of 4; together the threads of a CTA load them
//   all void vector.before_barrier() void vector.after_barrier() void vector.store(i, values)
//
// Launched with grid [vectors, ceil(outer / rows of a CTA)] and a table of `odd` floats in dynamic shared memory. A CTA
// makes kRows rows for every one that its threads hold: with more, x is read less often.
template <int kRows, class Stage>
__global__ void __launch_bounds__(kHadamardThreads, kHadamardCtas)
    hadamard_kernel(const HadamardShape shape, const Stage stage) {
  extern __shared__ float factors[];
  __shared__ float4 shared_columns[kRows][kHadamardThreads];
  const int thread = threadIdx.x, lane = thread % kWarpLanes;
  const int threads_per_row = shape.inner / kElements, rows_at_once = kHadamardThreads / threads_per_row;
  const int column = thread % threads_per_row * kElements;
  const int power = shape.outer / shape.odd;
  typename Stage::Vector vector(stage, blockIdx.x);

  // Row r = a * power + b has the factors Q[a][k] H[b][j] for rows k * power + j of x, H[b][j] = (-1)^popcount(b & j).
  int rows[kRows], step[kRows], place[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    rows[i] = (static_cast<int>(blockIdx.y) * kRows + i) * rows_at_once + thread / threads_per_row;
    step[i] = min(rows[i], shape.outer - 1) / power;
    place[i] = 0;  // a * k mod odd
  }
  fill_factors(shape, factors);
  __syncthreads();

  float sums[kRows][kElements] = {};
  for (int k = 0; k < shape.odd; ++k) {
    uint32_t factor[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      factor[i] = __float_as_uint(factors[place[i]]);
      place[i] += step[i];
      if (place[i] >= shape.odd) place[i] -= shape.odd;
    }
#pragma unroll 4
    for (int j = 0; j < power; ++j) {
      const float4 x = vector.load((k * power + j) * shape.inner + column);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const uint32_t sign = static_cast<uint32_t>(__popc(rows[i] & (power - 1) & j)) << 31;
        const float signed_factor = __uint_as_float(factor[i] ^ sign);
        sums[i][0] = fmaf(signed_factor, x.x, sums[i][0]);
        sums[i][1] = fmaf(signed_factor, x.y, sums[i][1]);
        sums[i][2] = fmaf(signed_factor, x.z, sums[i][2]);
        sums[i][3] = fmaf(signed_factor, x.w, sums[i][3]);
      }
    }
  }

  const int warps_per_row = (threads_per_row + kWarpLanes - 1) / kWarpLanes;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    transform_columns(sums[i], threads_per_row, lane);
    if (warps_per_row > 1) shared_columns[i][thread] = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
  }
  vector.before_barrier();
  __syncthreads();
  vector.after_barrier();
  const int warp_of_row = thread / kWarpLanes & (warps_per_row - 1);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float4 values = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
    if (warps_per_row > 1) {
      values = {};
      for (int warp = 0; warp < warps_per_row; ++warp) {
        const float4 other = shared_columns[i][thread + (warp - warp_of_row) * kWarpLanes];
        const float sign = __popc(warp & warp_of_row) & 1 ? -1.0f : 1.0f;
        values.x = fmaf(sign, other.x, values.x);
        values.y = fmaf(sign, other.y, values.y);
        values.z = fmaf(sign, other.z, values.z);
        values.w = fmaf(sign, other.w, values.w);
      }
    }
    if (rows[i] < shape.outer) vector.store(rows[i] * shape.inner + column, values);
  }
}

}  // namespace requant::cuda
