// y = H x of any size n, the orthonormal transform of requant_kernels/formats/hadamard.py, by CTAs that need nothing
// from each other.
//
//   H_n = (Q_odd (x) H_{outer / odd}) (x) H_inner          n = outer * inner, inner a power of two up to 1024
//
// x is read as [outer, inner]. A CTA makes some rows of y. The outer factor is a small dense product over all of x,
// with factors from a table of the CTA's own in shared memory,
//
//   factors [outer][rows of the CTA]
//
// and the inner one a fast Walsh-Hadamard transform of each row, whose columns are spread over the CTA:
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
constexpr int kMaxFactors = 8192;  // 32 KB of shared memory

struct HadamardShape {
  int odd;
  int outer;
  int inner;
  int rows_at_once;  // that a CTA's threads hold side by side
  float norm;        // n^-1/2
};

// Element (row, column) of the outer factor over n^1/2. Row a * power + b, column k * power + j: Q[a][k] H[b][j] with
// Q[a][k] = cos(2 pi a k / odd) + sin(2 pi a k / odd), H[b][j] = (-1)^popcount(b & j).
__device__ __forceinline__ float outer_factor(const HadamardShape& shape, int row, int column) {
  const int power = shape.outer / shape.odd;
  float factor = shape.norm;
  if (shape.odd > 1) {
    const int place = row / power * (column / power) % shape.odd;
    const int turn = 2 * place > shape.odd ? place - shape.odd : place;  // the nearer to 0, the more exact
    float sine, cosine;
    sincospif(2 * static_cast<float>(turn) / static_cast<float>(shape.odd), &sine, &cosine);
    factor *= cosine + sine;
  }
  return __popc(row & column & (power - 1)) % 2 == 0 ? factor : -factor;
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

__device__ __forceinline__ float4 multiply_add(float factor, float4 x, float4 sum) {
  return {fmaf(factor, x.x, sum.x), fmaf(factor, x.y, sum.y), fmaf(factor, x.z, sum.z), fmaf(factor, x.w, sum.w)};
}

// The same between the warps of a row, for the values of one thread; all values are in `columns` [threads].
__device__ __forceinline__ float4 transform_warps(const float4* columns, int warps_per_row) {
  const int warp_of_row = threadIdx.x / kWarpLanes & (warps_per_row - 1);
  const float4* const row = columns + threadIdx.x - warp_of_row * kWarpLanes;
  float4 sum = {};
#pragma unroll
  for (int warp = 0; warp < kHadamardWarps; ++warp) {
    if (warp >= warps_per_row) break;
    sum = multiply_add(__popc(warp & warp_of_row) % 2 == 0 ? 1.0f : -1.0f, row[warp * kWarpLanes], sum);
  }
  return sum;
}

// A Stage says what stands at the two ends of the transform of one vector, number blockIdx.x:
//
//   Stage::Vector vector(stage, blockIdx.x)
//   float4 vector.load(i)           elements i ..< i + 4, i a multiple of 4; together the threads of a CTA load them
//   all void vector.before_barrier() void vector.after_barrier() void vector.store(i, values)
//
// Launched with grid [vectors, ceil(outer / (kRows * rows_at_once))] and kRows * rows_at_once * outer floats of dynamic
// shared memory. With more rows for every thread, x is read less often.
template <int kRows, class Stage>
__global__ void __launch_bounds__(kHadamardThreads, kHadamardCtas)
    hadamard_kernel(const HadamardShape shape, const Stage stage) {
  struct alignas(sizeof(float) * kRows) Factors {
    float of_row[kRows];
  };
  extern __shared__ __align__(16) float factors[];
  __shared__ float4 shared_columns[kRows][kHadamardThreads];
  const int thread = threadIdx.x, rows = kRows * shape.rows_at_once, first_row = static_cast<int>(blockIdx.y) * rows;
  const int threads_per_row = shape.inner / kElements;
  // Threads beyond the last row repeat another one's work, and do not store it.
  const int thread_row = min(thread / threads_per_row, shape.rows_at_once - 1);
  const int column = thread % threads_per_row * kElements;
  typename Stage::Vector vector(stage, blockIdx.x);

  for (int i = thread; i < rows * shape.outer; i += kHadamardThreads) {
    factors[i] = outer_factor(shape, min(first_row + i % rows, shape.outer - 1), i / rows);
  }
  __syncthreads();

  float4 sums[kRows] = {};
#pragma unroll 4
  for (int row = 0; row < shape.outer; ++row) {
    const float4 x = vector.load(row * shape.inner + column);
    const Factors present = *reinterpret_cast<const Factors*>(factors + row * rows + thread_row * kRows);
#pragma unroll
    for (int i = 0; i < kRows; ++i) sums[i] = multiply_add(present.of_row[i], x, sums[i]);
  }

  const int warps_per_row = (threads_per_row + kWarpLanes - 1) / kWarpLanes;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float values[kElements] = {sums[i].x, sums[i].y, sums[i].z, sums[i].w};
    transform_columns(values, threads_per_row, thread % kWarpLanes);
    sums[i] = {values[0], values[1], values[2], values[3]};
    if (warps_per_row > 1) shared_columns[i][thread] = sums[i];
  }
  vector.before_barrier();
  __syncthreads();
  vector.after_barrier();
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = first_row + thread_row * kRows + i;
    if (warps_per_row > 1) sums[i] = transform_warps(shared_columns[i], warps_per_row);
    if (row < shape.outer && thread / threads_per_row < shape.rows_at_once) {
      vector.store(row * shape.inner + column, sums[i]);
    }
  }
}

}  // namespace requant::cuda
