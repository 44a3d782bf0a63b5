// Format `trellis` as operand A of the matrix product: every state is cut out of its row's bits (common/trellis.h) and
// becomes a value in registers.
//
// Lane (g, t) = (lane / 4, lane % 4) of mma.m16n8k16 takes rows 2 g and 2 g + 1 of tile t of four neighbouring tiles
// (TrellisOrder::kFragments). Thus no two lanes cut up the same row, and all shifts are constants.
//
//   plane of 16 rows | row 0 | row 1 | row 2 | row 3 | ...       two rows a lane, and the one before for its last bits
//                      g = 0           g = 1
#pragma once

#include "cuda/accumulators.cuh"
#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {

// The bits of one row of a tile, as the sources of its states.
template <int kBits>
class TrellisRow {
 public:
  TrellisRow() = default;
  // From the row's words in both planes and the last word of the row before: of two rows in a dword with 3 bits, this
  // one is number kHalf, the one before 1 - kHalf.
  template <int kHalf>
  __device__ __forceinline__ static TrellisRow of(uint32_t first, uint32_t second, uint32_t before) {
    constexpr uint32_t kUpperOfLower = 0x5432, kLowerOfUpper = 0x5410;
    TrellisRow row;
    // The upper half of `first` below the 16 bits before it.
    row.sources_[0] = select_bytes(first, before, kBits == 3 && kHalf == 0 ? 0x7632 : kUpperOfLower);
    row.sources_[1] = first;
    if constexpr (kBits == 3) row.sources_[2] = select_bytes(second, first, kHalf == 0 ? kLowerOfUpper : kUpperOfLower);
    if constexpr (kBits == 4) {
      row.sources_[2] = select_bytes(second, first, kUpperOfLower);
      row.sources_[3] = second;
    }
    return row;
  }

  // The state that ends kEnd bits into the row. Above it are other bits, unless kClean.
  template <int kEnd, bool kClean>
  __device__ __forceinline__ uint32_t state() const {
    constexpr int kSource = (kEnd - 1) / 16, kShift = 16 * (kSource + 1) - kEnd;
    if constexpr (!kClean) return sources_[kSource] >> kShift;
    // States a byte apart share a shift; a permutation takes their bytes.
    return select_bytes(sources_[kSource] >> (kShift % 8), 0, kShift < 8 ? 0x4410 : 0x4421);
  }

 private:
  uint32_t sources_[kBits];
};

// Rows 2 g and 2 g + 1 of a packed tile.
template <int kBits>
struct TrellisRowPair {
  // Where they stand in a tile, in bytes: their words of plane 0, those of plane 1, and the last word before them.
  struct Places {
    int first;
    int second;
    int before;
  };
  __device__ __forceinline__ static Places places(int g) {
    constexpr int kPlaneBytes = 4 * kTrellisTile, kLastPlane = kBits == 2 ? 0 : kPlaneBytes;
    constexpr int kLastPlanePairBytes = kBits == 3 ? 4 : 8;  // with 3 bits a dword for both
    const int g_before = (g + kTrellisTile / 2 - 1) % (kTrellisTile / 2);
    return {8 * g, kPlaneBytes + kLastPlanePairBytes * g, kLastPlane + kLastPlanePairBytes * (g_before + 1) - 4};
  }

  TrellisRow<kBits> rows[2];

  __device__ __forceinline__ void load(const uint8_t* codes, const Places& places) {
    const uint2 first = *reinterpret_cast<const uint2*>(codes + places.first);
    const uint32_t before = *reinterpret_cast<const uint32_t*>(codes + places.before);
    if constexpr (kBits == 2) {
      rows[0] = TrellisRow<kBits>::template of<0>(first.x, 0, before);
      rows[1] = TrellisRow<kBits>::template of<1>(first.y, 0, first.x);
    } else if constexpr (kBits == 3) {
      const uint32_t second = *reinterpret_cast<const uint32_t*>(codes + places.second);
      rows[0] = TrellisRow<kBits>::template of<0>(first.x, second, before);
      rows[1] = TrellisRow<kBits>::template of<1>(first.y, second, second);
    } else {
      const uint2 second = *reinterpret_cast<const uint2*>(codes + places.second);
      rows[0] = TrellisRow<kBits>::template of<0>(first.x, second.x, before);
      rows[1] = TrellisRow<kBits>::template of<1>(first.y, second.y, second.x);
    }
  }
};

// A code makes the values of columns kColumn and kColumn + 1 of a row, kColumn even, as a pair of fp16 times kUnit.

// x = 34038481 state + 76625530; (the sum of its bytes - 510) / 128, exactly.
struct OneMad {
  static constexpr TrellisCode kCode = TrellisCode::k1mad;
  static constexpr float kUnit = trellis_unit(kCode);

  __device__ explicit OneMad(const Trellis&) {}
  template <int kColumn, int kBits>
  __device__ __forceinline__ uint32_t pair(const TrellisRow<kBits>& row) const {
    const uint32_t sums = select_bytes(sum_bytes(row.template state<(kColumn + 1) * kBits, true>()),
                                       sum_bytes(row.template state<(kColumn + 2) * kBits, true>()), 0x5410);
    constexpr uint32_t kFactors = constant_pair<__half>(1.0f / 128);
    constexpr uint32_t kConstants = constant_pair<__half>(-(1024 + 510) / 128.0f);
    return Numbers<__half>::multiply_add(sums, kFactors, kConstants);
  }

 private:
  // The bits of the fp16 number 1024 + sum: the sum is less than 1024 and stands in the mantissa.
  __device__ __forceinline__ static uint32_t sum_bytes(uint32_t state) {
    return __dp4a(state * 34038481u + 76625530u, 0x01010101u, Numbers<__half>::kMagic & 0xffff);
  }
};

// x = 89226354 state + 64248484; the sum of the fp16 halves of (x & 0x8fff8fff) ^ 0x3b603b60, rounded to fp16.
struct ThreeInst {
  static constexpr TrellisCode kCode = TrellisCode::k3inst;
  static constexpr float kUnit = trellis_unit(kCode);

  __device__ explicit ThreeInst(const Trellis&) : flip_(keep_constant(0x3b603b60)) {}
  template <int kColumn, int kBits>
  __device__ __forceinline__ uint32_t pair(const TrellisRow<kBits>& row) const {
    const uint32_t first = halves(row.template state<(kColumn + 1) * kBits, true>());
    const uint32_t second = halves(row.template state<(kColumn + 2) * kBits, true>());
    return Numbers<__half>::add(select_bytes(first, second, 0x5410), select_bytes(first, second, 0x7632));
  }

 private:
  __device__ __forceinline__ uint32_t halves(uint32_t state) const {
    return ((state * 89226354u + 64248484u) & 0x8fff8fffu) ^ flip_;
  }

  uint32_t flip_;  // with both constants at hand, mask and flip are two instructions
};

// x = (state + 1) state; row (x >> 6) mod 512 of the codebook, rounded to fp16, its first value negated if x has
// bit 15.
//
//   shared memory | row 0: copy 0, copy 1 | row 1: copy 0, ...        odd lanes read copy 1, so that fewer meet in a
//   bank
class Hyb {
 public:
  static constexpr TrellisCode kCode = TrellisCode::kHyb;
  static constexpr float kUnit = trellis_unit(kCode);

  // Called by all threads of a CTA, with a barrier before the first use of `pair`.
  __device__ explicit Hyb(const Trellis& trellis) {
    uint32_t* const rows = shared_rows();
    for (int row = threadIdx.x; row < kRows; row += blockDim.x) {
      const float2 values = __ldg(reinterpret_cast<const float2*>(trellis.codebook) + row);
      const uint32_t pair = Numbers<__half>::pair(values.x, values.y);
#pragma unroll
      for (int copy = 0; copy < kCopies; ++copy) rows[row * kCopies + copy] = pair;
    }
    copy_ = rows + threadIdx.x % kCopies;
  }

  template <int kColumn, int kBits>
  __device__ __forceinline__ uint32_t pair(const TrellisRow<kBits>& row) const {
    const uint32_t state = row.template state<(kColumn + 2) * kBits, false>();
    const uint32_t x = state * state + state;  // its low half depends on the low half of `state` alone
    return copy_[(x >> 6) % kRows * kCopies] ^ (x & 0x8000);
  }

 private:
  static constexpr uint32_t kRows = 512;
  static constexpr uint32_t kCopies = 2;
  __device__ static uint32_t* shared_rows() {
    __shared__ uint32_t rows[kRows * kCopies];
    return rows;
  }

  const uint32_t* copy_;
};

template <int kCodeBits, class Code>
class TrellisWeights {
  using Pair = TrellisRowPair<kCodeBits>;
  static constexpr int kTilesAtOnce = 4;
  static constexpr int kTileBytes = trellis_tile_bytes(kCodeBits);

 public:
  using Number = __half;
  static constexpr int kBits = kCodeBits;
  static constexpr int kLaneBytes = 0;
  static constexpr bool kHasZero = false;
  static constexpr Groups kGroups = Groups::kNone;
  static constexpr bool kRotated = true;

  // Tiles of 64 and of 128 bytes would put the same rows of all tiles into the same banks.
  __device__ __forceinline__ static int place(int byte) {
    constexpr int kLines = kTilesAtOnce * kTileBytes / 128;  // lines of 32 banks
    return kBits == 3 ? byte : byte ^ (byte / 128 % kLines) * 32;
  }

  __device__ TrellisWeights(const LinearParameters& p, int64_t /*tile*/, int lane)
      : code_(p.weight.trellis), places_(Pair::places(lane / kTilesAtOnce)) {
    for (int* byte : {&places_.first, &places_.second, &places_.before}) {
      *byte = keep(place(lane % kTilesAtOnce * kTileBytes + *byte));
    }
  }

  __device__ float row_scale(int /*half*/) const { return 1; }  // finish_outputs scales

  // Operand A of product kStep of a span of 8 tiles, in order: columns 4 j ..< 4 j + 4 of four tiles, j = kStep % 4.
  template <int kStep>
  __device__ __forceinline__ void fragment(const uint8_t* span, uint32_t (&a)[4]) {
    constexpr int kColumn = kStep % kTilesAtOnce * 4;
    if constexpr (kColumn == 0) pair_.load(span + kStep / kTilesAtOnce * kTilesAtOnce * kTileBytes, places_);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      a[row] = code_.template pair<kColumn>(pair_.rows[row]);
      a[row + 2] = code_.template pair<kColumn + 2>(pair_.rows[row]);
    }
  }

 private:
  Code code_;
  typename Pair::Places places_;
  Pair pair_;
};

}  // namespace requant::cuda
