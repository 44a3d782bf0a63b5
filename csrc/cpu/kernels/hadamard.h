// y = H x of size n = m * 2^k, m odd, k >= 4: the discrete Hartley transform across the m rows of x [m, 2^k], a fast
// Walsh-Hadamard transform along them, orthonormal (see requant_kernels/formats/hadamard.py).
#pragma once

#include <cmath>

#include "kernels/buffer.h"
#include "kernels/lanes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

class Hadamard {
 public:
  explicit Hadamard(int64_t size) : size_(size), power_(size & -size), odd_(size / power_), cas_(odd_ > 1 ? odd_ : 0) {
    for (int64_t i = 0; i < odd_ && odd_ > 1; ++i) {
      const double angle = 2 * 3.14159265358979323846 * static_cast<double>(i) / static_cast<double>(odd_);
      cas_.data()[i] = static_cast<float>((std::cos(angle) + std::sin(angle)) / std::sqrt(static_cast<double>(odd_)));
    }
  }

  // In place; `scratch` holds as many values.
  void transform(float* x, float* scratch) const {
    if (odd_ > 1) {
      std::memcpy(scratch, x, size_ * sizeof(float));
      for (int64_t row = 0; row < odd_; ++row) hartley_row(scratch, row, x + row * power_);
    }
    const float unit = 1 / std::sqrt(static_cast<float>(power_));
    for (int64_t row = 0; row < odd_; ++row) walsh(x + row * power_, unit);
  }

 private:
  void hartley_row(const float* x, int64_t row, float* y) const {
    for (int64_t i = 0; i < power_; ++i) y[i] = 0;
    for (int64_t k = 0; k < odd_; ++k) {
      const float factor = cas_.data()[row * k % odd_];
      const float* other = x + k * power_;
      for (int64_t i = 0; i < power_; ++i) y[i] += factor * other[i];
    }
  }

  void walsh(float* x, float unit) const {
    for (int64_t half = power_ / 2; half >= kLanes; half /= 2) {
      for (int64_t begin = 0; begin < power_; begin += 2 * half) {
        for (int64_t i = begin; i < begin + half; i += kLanes) {
          const FloatLanes a = load_float_lanes(x + i), b = load_float_lanes(x + i + half);
          store_lanes(x + i, a + b);
          store_lanes(x + i + half, a - b);
        }
      }
    }
    SignedLanes lane{};
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    for (int64_t i = 0; i < power_; i += kLanes) {
      FloatLanes a = load_float_lanes(x + i) * unit;
      unroll<0, kLanes == 16  ? 4
                : kLanes == 8 ? 3
                              : 2>([&](auto bit) REQUANT_INLINE {
        const SignedLanes upper = lane >> bit.value & 1;  // these get other - a, the rest other + a
        const FloatLanes other = shuffle(a, a, lane ^ (1 << bit.value));
        a = other + reinterpret_cast<FloatLanes>(reinterpret_cast<SignedLanes>(a) ^ upper << 31);
      });
      store_lanes(x + i, a);
    }
  }

  int64_t size_, power_, odd_;
  Buffer<float> cas_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
