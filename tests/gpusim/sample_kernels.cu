// Kernels in the style of the product's, small enough to be understood at a glance: what the simulator's tests compile,
// run and mutate.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffff;

__device__ float sum_over_warp(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ float sum_over_pair(__half2 pair) {
  const float2 both = __half22float2(pair);
  return both.x + both.y;
}

}  // namespace

// y[row] = sum of table[row, code] * x over 4-bit codes, eight per word from low to high. One warp per row, whose table
// stands in shared memory. The inputs are a multiple of 8.
extern "C" __global__ void __launch_bounds__(128)
    look_up(const uint32_t* __restrict__ codes, const __half* __restrict__ tables, const __half* __restrict__ x,
            float* y, int rows, int inputs) {
  __shared__ __half table[4][16];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int row = blockIdx.x * 4 + warp;
  if (lane < 16 && row < rows) table[warp][lane] = tables[row * 16 + lane];
  __syncthreads();
  if (row >= rows) return;
  const uint4* x_of_words = reinterpret_cast<const uint4*>(x);
  float sum = 0;
  for (int word = lane; word < inputs / 8; word += kWarp) {
    const uint32_t packed = codes[row * (inputs / 8) + word];
    const uint4 eight = x_of_words[word];
    const __half2* pairs = reinterpret_cast<const __half2*>(&eight);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t codes_of_pair = packed >> (8 * i);
      sum = fmaf(__half2float(table[warp][codes_of_pair & 15]), __low2float(pairs[i]), sum);
      sum = fmaf(__half2float(table[warp][codes_of_pair >> 4 & 15]), __high2float(pairs[i]), sum);
    }
  }
  sum = sum_over_warp(sum);
  if (lane == 0) y[row] = sum;
}

// y[row] += scale[row] * sum of (code - 8) * x: codes as above, but input 2 i of a word at bits 4 i and input 2 i + 1
// at bits 16 + 4 i, so that one instruction decodes a pair. blockIdx.y takes a part of the inputs.
extern "C" __global__ void __launch_bounds__(128)
    scaled(const uint32_t* __restrict__ codes, const __half* __restrict__ scale, const __half* __restrict__ x, float* y,
           int rows, int inputs) {
  const int lane = threadIdx.x % kWarp;
  const int row = blockIdx.x * 4 + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int words = inputs / 8, stride = kWarp * gridDim.y;
  const uint4* x_of_words = reinterpret_cast<const uint4*>(x);
  float sum = 0;
  for (int word = blockIdx.y * kWarp + lane; word < words; word += stride) {
    const uint32_t packed = codes[row * words + word];
    const uint4 eight = x_of_words[word];
    const __half2* pairs = reinterpret_cast<const __half2*>(&eight);
    __half2 part = __float2half2_rn(0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // 1024 + code, as the code stands in the last bits of the mantissa.
      uint32_t bits = (packed >> (4 * i) & 0x000f000f) | 0x64006400;
      const __half2 code = __hsub2(*reinterpret_cast<__half2*>(&bits), __float2half2_rn(1032));
      part = __hfma2(code, pairs[i], part);
    }
    sum += sum_over_pair(part);
  }
  sum = sum_over_warp(sum);
  if (lane == 0) atomicAdd(y + row, sum * __half2float(scale[row]));
}

// C [16, columns] = A [16, depth] B [columns, depth] transposed. Tiles of A go through shared memory in two stages; a
// warp makes 8 columns, a block 32. The depth is a multiple of 16.
extern "C" __global__ void __launch_bounds__(128) multiply(const __half* __restrict__ a, const __half* __restrict__ b,
                                                           float* __restrict__ c, int columns, int depth) {
  constexpr int kRowStride = 16 + 8;  // padded, so that ldmatrix meets no bank conflicts
  __shared__ __align__(16) __half tiles[2][16][kRowStride];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int first_column = (blockIdx.x * 4 + warp) * 8;
  const auto fetch = [&](int stage, int begin) {
    if (threadIdx.x < 32) {
      const int row = threadIdx.x / 2, half = threadIdx.x % 2;
      const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(&tiles[stage][row][half * 8]));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(a + row * depth + begin + half * 8));
    }
    asm volatile("cp.async.commit_group;");
  };
  float sums[4] = {};
  int stage = 0;
  fetch(0, 0);
  for (int begin = 0; begin < depth; begin += 16) {
    if (begin + 16 < depth) {
      fetch(stage ^ 1, begin + 16);
    } else {
      asm volatile("cp.async.commit_group;");
    }
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    uint32_t fragment[4];
    const auto from = __cvta_generic_to_shared(&tiles[stage][lane % 16][lane / 16 * 8]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(static_cast<uint32_t>(from)));
    const __half* place = b + (first_column + lane / 4) * depth + begin + lane % 4 * 2;
    const uint32_t low = *reinterpret_cast<const uint32_t*>(place);
    const uint32_t high = *reinterpret_cast<const uint32_t*>(place + 8);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(fragment[0]), "r"(fragment[1]), "r"(fragment[2]), "r"(fragment[3]), "r"(low), "r"(high));
    __syncthreads();
    stage ^= 1;
  }
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * columns + first_column + lane % 4 * 2 + i % 2] = sums[i];
}

// y[row] = the sum over a row of a CSR matrix in bf16, times x. One warp per row, loops of any length.
extern "C" __global__ void sparse(const int* __restrict__ row_offsets, const int* __restrict__ columns,
                                  const __nv_bfloat16* __restrict__ values, const __nv_bfloat16* __restrict__ x,
                                  float* y, int rows) {
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  if (row >= rows) return;
  float sum = 0;
  for (int i = row_offsets[row] + lane; i < row_offsets[row + 1]; i += kWarp) {
    sum += __bfloat162float(values[i]) * __bfloat162float(x[columns[i]]);
  }
  sum = sum_over_warp(sum);
  if (lane == 0) y[row] = sum;
}
