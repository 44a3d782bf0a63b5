// Rounding of fp32 values to integers by a scale of their own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace requant::cpu::REQUANT_ISA {
namespace {

// value ~ scale * integer, where the largest magnitude becomes `limit`. Values of which none reaches 2^-100 become 0
// with scale 0; an infinity or a NaN among them makes the scale a NaN and the integers 0.
class Rounding {
 public:
  Rounding(const float* values, int64_t count, float limit) {
    uint32_t largest_bits = 0;  // magnitudes are ordered as their bits are, infinity and NaNs being the largest
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i, sizeof bits);
      bits &= 0x7fffffff;
      largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000) {
      scale_ = std::nanf("");
    } else if (largest >= 0x1p-100f) {
      scale_ = largest / limit;
      inverse_ = limit / largest;
    }
  }

  float scale() const { return scale_; }

  // integers[i] = values[i] / scale, to nearest even, plus `offset`. Integer holds limit + offset.
  template <class Integer>
  void round(const float* values, int64_t count, int offset, Integer* integers) const {
    if (inverse_ == 0) {
      for (int64_t i = 0; i < count; ++i) integers[i] = static_cast<Integer>(offset);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      integers[i] = static_cast<Integer>(static_cast<int>(__builtin_rintf(values[i] * inverse_)) + offset);
    }
  }

 private:
  float scale_ = 0;
  float inverse_ = 0;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
