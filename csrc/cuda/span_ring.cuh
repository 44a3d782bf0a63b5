// One warp's codes on their way: a ring of spans in shared memory, all but one of them still being copied.
//
//   ring   | span 4 | span 1 | span 2 | span 3 |        span 1 is worked on, 2 and 3 arrive, 4 has just been asked for
//
// Every address follows from the number of the present input: nothing is carried from span to span.
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

// kStride: inputs from one span of the warp to its next, a power of two.
template <int kBits, int kStride>
class SpanRing {
 public:
  static constexpr int kSpanBytes = 16 * kSpanInputs * kBits / 8;
  static constexpr int kSpans = ring_spans(kBits);
  static constexpr int kAhead = kSpans - 1;
  static constexpr int kBytes = kSpans * kSpanBytes;

  // Starts copying the first spans of a tile whose packed bytes begin at `codes`, from input `begin` on. Bytes from
  // `end` on become zeros. Every copy of a span is a group of its own. Of every 512 bytes, those from 16 lane on go to
  // `place`.
  __device__ __forceinline__ SpanRing(uint8_t* ring, const uint8_t* codes, int begin, int end, int lane, int place)
      : source_(keep(codes + 16 * lane + kAhead * kStride * kBytesPerInput)),
        target_(keep(static_cast<int>(shared_address(ring)) + place)),
        lane_(lane) {
#pragma unroll
    for (int copy = 0; copy < kCopies; ++copy) {
      const int left = end - 16 * lane - kCopyBytes * copy + kBytesPerInput - 1;
      end_inputs_[copy] = (left >= 0 ? left / kBytesPerInput : 0) - kAhead * kStride;
    }
#pragma unroll
    for (int span = -kAhead; span < 0; ++span) copy_ahead(begin + span * kStride);
  }

  // Where in the ring the span from `input` on stands, in bytes. Asks for another one in the place of the last. All
  // lanes of the warp have finished with the last one, and have waited for this one.
  __device__ __forceinline__ uint32_t advance(int input) {
    copy_ahead(input);
    return span_place(input);
  }

 private:
  static constexpr int kBytesPerInput = 2 * kBits;  // of 16 rows
  static constexpr int kCopyBytes = 16 * kWarpLanes;
  static constexpr int kCopies = (kSpanBytes + kCopyBytes - 1) / kCopyBytes;

  __device__ __forceinline__ static uint32_t span_place(uint32_t input) {
    return input / kStride % kSpans * kSpanBytes;
  }

  // Asks for the span kAhead spans after the one of `input`.
  __device__ __forceinline__ void copy_ahead(int input) {
    const uint8_t* source = source_ + int64_t{input} * kBytesPerInput;
    const uint32_t target = target_ + span_place(input + kAhead * kStride);
#pragma unroll
    for (int copy = 0; copy < kCopies; ++copy) {
      const int byte = copy * kCopyBytes;
      if (byte + kCopyBytes <= kSpanBytes || 16 * lane_ < kSpanBytes - byte) {
        copy_16_bytes(target + byte, source + byte, input < end_inputs_[copy] ? 16 : 0);
      }
    }
    commit_copies();
  }

  const uint8_t* source_;    // this lane's first 16 bytes of the span that is asked for at input 0
  uint32_t target_;          // and where they go, in the first span of the ring
  int end_inputs_[kCopies];  // from this input on, what would be asked for does not exist
  int lane_;
};

}  // namespace requant::cuda
