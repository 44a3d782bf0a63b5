// One warp's codes on their way: a ring of spans in shared memory, all but one of them still being copied.
//
//   ring   | span 4 | span 1 | span 2 | span 3 |        span 1 is worked on, 2 and 3 arrive, 4 has just been asked for
#pragma once

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"

namespace requant::cuda {

template <int kBits>
class SpanRing {
 public:
  static constexpr int kSpanBytes = 16 * kSpanInputs * kBits / 8;
  static constexpr int kSpans = ring_spans(kBits);
  static constexpr int kAhead = kSpans - 1;

  // Starts copying the first spans of a tile whose packed bytes begin at `codes`: from byte `first` on, `stride` bytes
  // apart. Bytes from `end` on become zeros. Every copy of a span is a group of its own. Of every 512 bytes, those from
  // 16 lane on go to `place`.
  __device__ __forceinline__ SpanRing(uint8_t* ring, const uint8_t* codes, int first, int stride, int end, int lane,
                                      int place)
      : ring_(ring),
        source_(keep(codes + first + 16 * lane)),
        target_(keep(static_cast<int>(shared_address(ring)) + place)),
        left_(end - first - 16 * lane),
        stride_(stride),
        lane_(lane) {
#pragma unroll
    for (int span = 0; span < kAhead; ++span) copy_next(span * kSpanBytes);
  }

  // The span to work on, once it has arrived; asks for another one in the place of the last. All lanes of the warp have
  // finished with the last one, and have waited for this one.
  __device__ __forceinline__ const uint8_t* advance() {
    const uint8_t* present = ring_ + place_;
    copy_next(place_ == 0 ? kAhead * kSpanBytes : place_ - kSpanBytes);
    place_ = place_ == kAhead * kSpanBytes ? 0 : place_ + kSpanBytes;
    return present;
  }

 private:
  __device__ __forceinline__ void copy_next(int place) {
    constexpr int kCopyBytes = 16 * kWarpLanes;
#pragma unroll
    for (int byte = 0; byte < kSpanBytes; byte += kCopyBytes) {
      if (byte + kCopyBytes <= kSpanBytes || 16 * lane_ < kSpanBytes - byte) {
        copy_16_bytes(target_ + place + byte, source_ + byte, byte < left_ ? 16 : 0);
      }
    }
    commit_copies();
    source_ += stride_;
    left_ -= stride_;
  }

  uint8_t* ring_;
  const uint8_t* source_;  // this lane's first 16 bytes of the span to be copied next
  uint32_t target_;        // and where they go, in the first span of the ring
  int left_;               // bytes from source_ to the end
  int stride_;
  int lane_;
  int place_ = 0;
};

}  // namespace requant::cuda
