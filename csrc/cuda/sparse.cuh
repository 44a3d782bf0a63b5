// The sparse part on the GPU: what `requant_kernels/backends/cuda.py` derives from CSR at load, and how a warp adds it.
//
// Tiles of 16 rows, slices of 256 inputs:
//
//   uint32 offsets[tiles * slices + 1]     entries of (tile, slice): offsets[k] ..< offsets[k + 1], k = tile * slices +
//   uint32 entries[]                       slice
//
//   entry   bit 31         16 15   12 11             0
//               16-bit value |  row  |  input mod 4096         of one (tile, slice): by input, then by row
//
// Any spread of the entries costs the same: lane after lane takes the next entry, and every lane adds to sums of its
// own, one per row, so that no two lanes meet and the order of additions is fixed.
//
//   sums [16 rows][32 lanes]     lane = slot * 2^token_slots_log2 + token: several entries side by side for few tokens
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

constexpr int kEntryRowShift = 12;
constexpr uint32_t kEntryInputMask = 0xfff;
constexpr int kEntryValueShift = 16;
constexpr int kSparseSums = 16 * kWarpLanes;

__device__ __forceinline__ void clear_sparse_sums(float* sums, int lane) {
#pragma unroll
  for (int row = 0; row < 16; ++row) sums[row * kWarpLanes + lane] = 0;
}

// Adds the entries of `tile` whose inputs lie in [first_input, first_input + inputs), every `sharers`-th turn.
// kWholeSlices: that range begins and ends between slices. x_at(token, input - first_input) is x as a float.
template <bool kWholeSlices, class X>
__device__ __forceinline__ void add_sparse(const LinearParameters& p, float* sums, int64_t tile, uint32_t first_input,
                                           uint32_t inputs, int turn, int sharers, int tokens, int lane, X x_at) {
  const SparseIndex& sparse = p.weight.sparse;
  const uint32_t slices = p.slices;
  const uint32_t* offsets = sparse.offsets + tile * slices;
  const uint32_t begin = __ldg(offsets + first_input / kSliceInputs);
  const uint32_t end = __ldg(offsets + min((first_input + inputs + kSliceInputs - 1) / kSliceInputs, slices));
  const int token = lane & ((1 << p.token_slots_log2) - 1);
  if (token >= tokens) return;
  const bool half = sparse.value_dtype == Dtype::kFloat16;
  const uint32_t slots = kWarpLanes >> p.token_slots_log2;
  for (uint32_t index = begin + turn * slots + (lane >> p.token_slots_log2); index < end; index += sharers * slots) {
    const uint32_t entry = load_once(sparse.entries + index);
    const uint32_t position = (entry - first_input) & kEntryInputMask;
    if (kWholeSlices || position < inputs) {
      const uint32_t row = entry >> kEntryRowShift & 15;
      const uint32_t bits = entry >> kEntryValueShift;
      const float value = half ? Numbers<__half>::to_float(bits) : Numbers<__nv_bfloat16>::to_float(bits);
      sums[row * kWarpLanes + lane] += value * x_at(token, position);
    }
  }
}

// Adds up the slots of every (row, token): afterwards sums[row * 32 + token] is the total, in place of the first slot,
// which only the lane that adds up this (row, token) reads.
__device__ __forceinline__ void finish_sparse_sums(float* sums, int token_slots_log2, int lane) {
  const int tokens = 1 << token_slots_log2, slots = kWarpLanes / tokens;
  __syncwarp();
  if (tokens == 1) {
    // Two lanes for a row. Slots are turned by the row, so that the lanes read from 32 different banks.
    const int row = lane / 2;
    float total = 0;
#pragma unroll
    for (int step = 0; step < 16; ++step) total += sums[row * kWarpLanes + lane % 2 * 16 + ((step + row) & 15)];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    if (lane % 2 == 0) sums[row * kWarpLanes] = total;
  } else {
    const int token = lane & (tokens - 1);
    for (int row = lane >> token_slots_log2; row < 16; row += slots) {
      float total = 0;
      for (int step = 0; step < slots; ++step) {
        total += sums[row * kWarpLanes + (((step + row) & (slots - 1)) << token_slots_log2) + token];
      }
      sums[row * kWarpLanes + token] = total;
    }
  }
  __syncwarp();
}

}  // namespace requant::cuda
