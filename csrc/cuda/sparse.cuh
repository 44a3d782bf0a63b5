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

// The sparse part of a warp's tile in a split of the inputs, chunk of x after chunk of x. Where the entries of the next
// chunk begin and end is asked for one chunk ahead. kWholeSlices: chunks begin and end between slices, as splits always
// do.
template <bool kWholeSlices>
class SparsePart {
 public:
  // Before the first chunk. kSharers warps take turns. The warp's sums begin at byte `sums` of `shared` memory.
  template <int kSharers>
  __device__ __forceinline__ void start(const LinearParameters& p, uint8_t* shared, int sums, int64_t tile,
                                        uint32_t split_begin, uint32_t split_end, int turn, int tokens, int lane) {
    lane_sums_ = keep(sums + lane * static_cast<int>(sizeof(float)));
#pragma unroll
    for (int index = lane; index < kSparseSums / 4; index += kWarpLanes) {
      reinterpret_cast<float4*>(shared + sums)[index] = {};
    }
    // Lanes beyond the last token do as it does, in sums that nobody reads.
    token_ = keep(min(lane & (p.token_slots - 1), tokens - 1));
    first_ = keep(turn * p.entry_slots + (lane >> p.token_slots_log2));
    stride_ = kSharers * p.entry_slots;
    first_slice_ = keep(static_cast<int>(tile) * p.slices);
    end_slice_ = keep(first_slice_ + (split_end + kSliceInputs - 1) / kSliceInputs);
    end_ = offset(p, first_slice_ + split_begin / kSliceInputs);
    look_ahead(p, split_begin);
  }

  // Adds the entries of the chunk from `first_input` on. x_at(token, input - first_input) is x as a float.
  template <class X>
  __device__ __forceinline__ void add(const LinearParameters& p, uint8_t* shared, int first_input, int split_end,
                                      X x_at) {
    const bool half = p.weight.sparse.value_dtype == Dtype::kFloat16;
    float* const sums = reinterpret_cast<float*>(shared + lane_sums_);
    const uint32_t end = end_;
    uint32_t index = begin_ + first_;
    const int next = first_input + p.chunk_inputs;
    if (next < split_end) look_ahead(p, next);
    for (; index < end; index += stride_) {
      const uint32_t entry = load_once(p.weight.sparse.entries + index);
      const int position = (entry - first_input) & kEntryInputMask;
      if (kWholeSlices || position < p.chunk_inputs) {
        const uint32_t row = entry >> kEntryRowShift & 15;
        const uint32_t bits = entry >> kEntryValueShift;
        const float value = half ? Numbers<__half>::to_float(bits) : Numbers<__nv_bfloat16>::to_float(bits);
        sums[row * kWarpLanes] += value * x_at(token_, position);
      }
    }
  }

  // Adds up the slots of every (row, token): after a barrier sums[row * 32 + token] is the total, in place of the first
  // slot, which only the lane that adds up this (row, token) reads.
  __device__ __forceinline__ void finish(const LinearParameters& p, uint8_t* shared, int lane) const {
    float* const sums = reinterpret_cast<float*>(shared + (lane_sums_ - lane * static_cast<int>(sizeof(float))));
    __syncwarp();
    if (p.token_slots == 1) {
      // Two lanes for a row, four quads of slots each, in an order by which eight lanes read from 32 different banks.
      const int row = lane / 2, first_quad = lane * 4 + row % 4;
      float quad_sums[4];
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const float4 quad = reinterpret_cast<const float4*>(sums)[first_quad ^ step];
        quad_sums[step] = (quad.x + quad.y) + (quad.z + quad.w);
      }
      float total = (quad_sums[0] + quad_sums[1]) + (quad_sums[2] + quad_sums[3]);
      total += __shfl_xor_sync(kAllLanes, total, 1);
      if (lane % 2 == 0) sums[row * kWarpLanes] = total;
    } else {
      const int token = lane & (p.token_slots - 1), slots = p.entry_slots;
      for (int row = lane >> p.token_slots_log2; row < 16; row += slots) {
        float total = 0;
        for (int step = 0; step < slots; ++step) {
          total += sums[row * kWarpLanes + (((step + row) & (slots - 1)) << p.token_slots_log2) + token];
        }
        sums[row * kWarpLanes + token] = total;
      }
    }
  }

 private:
  // To the chunk from `first_input` on.
  __device__ __forceinline__ void look_ahead(const LinearParameters& p, uint32_t first_input) {
    const uint32_t end_input = first_input + p.chunk_inputs + (kWholeSlices ? 0 : kSliceInputs - 1);
    begin_ = kWholeSlices ? end_ : offset(p, min(first_slice_ + first_input / kSliceInputs, end_slice_));
    end_ = offset(p, min(first_slice_ + end_input / kSliceInputs, end_slice_));
  }
  __device__ __forceinline__ static uint32_t offset(const LinearParameters& p, uint32_t slice) {
    return __ldg(p.weight.sparse.offsets + slice);
  }

  int lane_sums_;
  int token_;
  uint32_t first_slice_;  // of the tile, and the one after this split's, among those of all tiles
  uint32_t end_slice_;
  uint32_t begin_;  // of the entries of the next chunk
  uint32_t end_;
  uint32_t first_;  // of the lane's entries, behind the chunk's first one
  uint32_t stride_;
};

}  // namespace requant::cuda
