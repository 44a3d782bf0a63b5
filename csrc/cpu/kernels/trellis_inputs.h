// The rotated inputs of a few tokens, in the form in which products with the values of a code are summed.
//
// The sums over a stretch of tiles of one row tile are added to totals [token][part], which stand for `unit(token)`
// times as much. states(tile) are the states of a tile.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/buffer.h"
#include "kernels/conversion.h"
#include "kernels/trellis_codes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int64_t kTrellisStretchTiles = 8;
constexpr int64_t kTrellisStretchInputs = kTrellisStretchTiles * kTrellisTile;

// One token, fp32 products, any code.
class FloatInputs {
 public:
  static constexpr int kTokens = 1;

  explicit FloatInputs(int64_t in_padded) : size_(in_padded), x_(in_padded) {}

  void set(int64_t, const float* x) { std::memcpy(x_.data(), x, size_ * sizeof(float)); }
  float unit(int64_t) const { return 1; }

  template <class Code, class States>
  REQUANT_INLINE void add_stretch(const Code& code, int64_t first, int64_t end, States states,
                                  FloatLanes (&totals)[kTokens][kParts]) const {
    // One chain of dependent sums would be slower than the decoding, and one for all inputs less exact.
    FloatLanes sums[2][kParts] = {};
    for (int64_t tile = first; tile < end; ++tile) {
      const auto tile_states = states(tile);
      const float* x = x_.data() + tile * kTrellisTile;
      unroll<0, kTrellisTile * kParts>([&](auto index) REQUANT_INLINE {
        constexpr int kColumn = index.value / kParts, kPart = index.value % kParts;
        FloatLanes& sum = sums[kColumn % 2][kPart];
        sum = multiply_add(code.template value<kColumn>(tile_states.template states<kColumn>(kPart)),
                           splat_lanes(x[kColumn]), sum);
      });
    }
    for (int part = 0; part < kParts; ++part) totals[0][part] += sums[0][part] + sums[1][part];
  }

 private:
  int64_t size_;
  Buffer<float> x_;
};

#ifdef __AVX512BF16__
// Products of bf16 with x in bf16, for codes whose values come in pairs.
template <class Code, int kTokenCount>
class PairInputs {
  static constexpr int kPairInputs = Code::kPairInputs;

 public:
  static constexpr int kTokens = kTokenCount;
  explicit PairInputs(int64_t in_padded) : size_(in_padded), pairs_(in_padded / kPairInputs), x_(kTokens * pairs_) {}

  void set(int64_t token, const float* x) {
    uint16_t* place = reinterpret_cast<uint16_t*>(x_.data() + token * pairs_);
    store_floats(x, Dtype::kBFloat16, 0, size_, place);
    if constexpr (kPairInputs == 1) {
      for (int64_t i = size_ - 1; i >= 0; --i) place[2 * i] = place[2 * i + 1] = place[i];
    }
  }
  // In the place of a token that there is not.
  void clear(int64_t token) { std::memset(x_.data() + token * pairs_, 0, pairs_ * sizeof(uint32_t)); }
  float unit(int64_t) const { return 1 / Code::kPairUnit; }

  template <class States>
  REQUANT_INLINE void add_stretch(const Code& code, int64_t first, int64_t end, States states,
                                  FloatLanes (&totals)[kTokens][kParts]) const {
    constexpr int kChains = kTokens <= 2 ? 4 : kTokens <= 4 ? 2 : 1;  // of sums that do not wait for each other
    FloatLanes sums[kTokens][kChains] = {};
    for (int64_t tile = first; tile < end; ++tile) {
      const auto tile_states = states(tile);
      const typename Code::template Pairs<std::remove_const_t<decltype(tile_states)>> pairs(code, tile_states);
      const uint32_t* x = x_.data() + tile * (kTrellisTile / kPairInputs);
      unroll<0, kTrellisTile / kPairInputs>([&](auto index) REQUANT_INLINE {
        const Lanes weights = pairs.template pair<index.value * kPairInputs>();
        unroll<0, kTokens>([&](auto token) REQUANT_INLINE {
          FloatLanes& sum = sums[token.value][index.value % kChains];
          sum = add_bf16_products(weights, Lanes{} + x[token.value * pairs_ + index.value], sum);
        });
      });
    }
    for (int token = 0; token < kTokens; ++token) {
      for (const FloatLanes& sum : sums[token]) totals[token][0] += sum;
    }
  }

 private:
  int64_t size_, pairs_;
  Buffer<uint32_t> x_;  // [token][pair]
};
#endif

// Exact products with x as 16-bit integers times a unit, for codes whose values are sums of bytes. Rotated inputs look
// Gaussian, so the largest one, which sets the unit, is but a few times as large as the others: the error is some 1e-4
// of x, and at most sqrt(in_padded) / 2^16 of it, where all of x is one number in the rotated basis.
//
// The sums of the bytes of two columns go side by side into the halves of a lane and are multiplied with two inputs in
// one instruction. What is to be taken off every sum of bytes, the sums over a stretch start with: -kMiddle * sum of x.
template <int kTokenCount>
class FixedPointInputs {
 public:
  static constexpr int kTokens = kTokenCount;

  explicit FixedPointInputs(int64_t in_padded)
      : size_(in_padded),
        stretches_((in_padded + kTrellisStretchInputs - 1) / kTrellisStretchInputs),
        x_(kTokens * size_),
        sums_(kTokens * stretches_) {}

  // A NaN or an infinity in x makes the unit NaN.
  void set(int64_t token, const float* x) {
    uint32_t largest_bits = 0;  // the order of finite magnitudes is that of their bits; infinities and NaN are above
    for (int64_t i = 0; i < size_; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, sizeof bits);
      bits &= 0x7fffffff;
      largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    constexpr uint32_t kInfinity = 0x7f800000, kNan = 0x7fc00000;
    const bool finite = largest_bits < kInfinity;
    if (!finite) largest_bits = kNan;
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    units_[token] = largest / kLargest;
    if (!finite || largest == 0) return clear(token);
    const double per_unit = kLargest / static_cast<double>(largest);
    int16_t* integers = x_.data() + token * size_;
    for (int64_t stretch = 0; stretch < stretches_; ++stretch) {
      const int64_t first = stretch * kTrellisStretchInputs, end = smaller(first + kTrellisStretchInputs, size_);
      int32_t sum = 0;
      for (int64_t i = first; i < end; ++i) {
        const double value = x[i] * per_unit;
        const int32_t rounded = static_cast<int32_t>(value + (value < 0 ? -0.5 : 0.5));
        integers[i] = static_cast<int16_t>(rounded);
        sum += rounded;
      }
      sums_.data()[token * stretches_ + stretch] = sum;
    }
  }
  // In the place of a token that there is not.
  void clear(int64_t token) {
    std::memset(x_.data() + token * size_, 0, size_ * sizeof(int16_t));
    std::memset(sums_.data() + token * stretches_, 0, stretches_ * sizeof(int32_t));
  }
  float unit(int64_t token) const { return units_[token]; }

  template <class Code, class States>
  REQUANT_INLINE void add_stretch(const Code& code, int64_t first, int64_t end, States states,
                                  FloatLanes (&totals)[kTokens][kParts]) const {
    // Products wrap around while they are summed; the whole sum, at most kMiddle * x in magnitude per input, must fit.
    static_assert(kTrellisStretchInputs * Code::kMiddle * kLargest < INT32_MAX);
    Lanes sums[kTokens][kParts];
    for (int token = 0; token < kTokens; ++token) {
      const int32_t start = -Code::kMiddle * sums_.data()[token * stretches_ + first / kTrellisStretchTiles];
      for (Lanes& sum : sums[token]) sum = Lanes{} + static_cast<uint32_t>(start);
    }
    for (int64_t tile = first; tile < end; ++tile) {
      const auto tile_states = states(tile);
      const int16_t* x = x_.data() + tile * kTrellisTile;
      unroll<0, kTrellisTile / 2 * kParts>([&](auto index) REQUANT_INLINE {
        constexpr int kColumn = index.value / kParts * 2, kPart = index.value % kParts;
        const Lanes even = code.bytes(tile_states.template states<kColumn>(kPart));
        const Lanes odd = code.bytes(tile_states.template states<kColumn + 1>(kPart));
        const Lanes both = add_bytes(even, add_bytes(odd, Lanes{}) << 16);
        unroll<0, kTokens>([&](auto token) REQUANT_INLINE {
          uint32_t pair;
          std::memcpy(&pair, x + token.value * size_ + kColumn, sizeof pair);
          Lanes& sum = sums[token.value][kPart];
          sum = add_half_products(both, Lanes{} + pair, sum);
        });
      });
    }
    for (int token = 0; token < kTokens; ++token) {
      for (int part = 0; part < kParts; ++part) totals[token][part] += signed_to_floats(sums[token][part]);
    }
  }

 private:
  static constexpr int32_t kLargest = 32767;

  int64_t size_, stretches_;
  Buffer<int16_t> x_;     // [token][in_padded]
  Buffer<int32_t> sums_;  // of x, [token][stretch]
  float units_[kTokens];
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
