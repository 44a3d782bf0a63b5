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
      if (power_ >= 4 * kLanes) {
        hartley<4>(scratch, x);
      } else {
        hartley<1>(scratch, x);
      }
    }
    const float unit = 1 / std::sqrt(static_cast<float>(power_));
    for (int64_t row = 0; row < odd_; ++row) walsh(x + row * power_, unit);
  }

 private:
  // kVectors chains of sums that do not wait for each other.
  template <int kVectors>
  void hartley(const float* x, float* y) const {
    for (int64_t row = 0; row < odd_; ++row) {
      for (int64_t i = 0; i < power_; i += kVectors * kLanes) {
        FloatLanes sums[kVectors] = {};
        int64_t turn = 0;  // row * k modulo odd_
        for (int64_t k = 0; k < odd_; ++k) {
          const FloatLanes factor = splat_lanes(cas_.data()[turn]);
          unroll<0, kVectors>([&](auto vector) REQUANT_INLINE {
            const FloatLanes values = load_float_lanes(x + k * power_ + i + vector.value * kLanes);
            sums[vector.value] = multiply_add(factor, values, sums[vector.value]);
          });
          turn = turn + row < odd_ ? turn + row : turn + row - odd_;
        }
        unroll<0, kVectors>([&](auto vector) REQUANT_INLINE {
          store_lanes(y + row * power_ + i + vector.value * kLanes, sums[vector.value]);
        });
      }
    }
  }

  void walsh(float* x, float unit) const {
    int64_t half = power_ / 2;
    for (; half >= 2 * kLanes; half /= 4) two_levels(x, half / 2);
    for (int64_t i = 0; half == kLanes && i < power_; i += 2 * kLanes) {
      const FloatLanes a = load_float_lanes(x + i), b = load_float_lanes(x + i + kLanes);
      store_lanes(x + i, a + b);
      store_lanes(x + i + kLanes, a - b);
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

  // Sums and differences of values 2 * quarter apart, then of those `quarter` apart.
  void two_levels(float* x, int64_t quarter) const {
    for (int64_t begin = 0; begin < power_; begin += 4 * quarter) {
      for (int64_t i = begin; i < begin + quarter; i += kLanes) {
        const FloatLanes a = load_float_lanes(x + i), b = load_float_lanes(x + i + quarter);
        const FloatLanes c = load_float_lanes(x + i + 2 * quarter), d = load_float_lanes(x + i + 3 * quarter);
        const FloatLanes sum = a + c, difference = a - c, other_sum = b + d, other_difference = b - d;
        store_lanes(x + i, sum + other_sum);
        store_lanes(x + i + quarter, sum - other_sum);
        store_lanes(x + i + 2 * quarter, difference + other_difference);
        store_lanes(x + i + 3 * quarter, difference - other_difference);
      }
    }
  }

  int64_t size_, power_, odd_;
  Buffer<float> cas_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
