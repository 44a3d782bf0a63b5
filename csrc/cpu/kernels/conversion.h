// Arrays of fp32, fp16 and bf16 values to and from fp32.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtype.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

inline float bf16_to_float(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Rounds to nearest even; a NaN stays a NaN.
inline uint16_t float_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const bool not_a_number = (bits & 0x7fffffff) > 0x7f800000;
  return static_cast<uint16_t>(not_a_number ? bits >> 16 | 0x40 : rounded);
}

// destination[i] = source[first + i] for i < count
inline void load_floats(const void* source, Dtype dtype, int64_t first, int64_t count, float* destination) {
  if (dtype == Dtype::kFloat32) {
    std::memcpy(destination, static_cast<const float*>(source) + first, count * sizeof(float));
    return;
  }
  const uint16_t* values = static_cast<const uint16_t*>(source) + first;
  if (dtype == Dtype::kBFloat16) {
    for (int64_t i = 0; i < count; ++i) destination[i] = bf16_to_float(values[i]);
    return;
  }
  const int64_t whole = count - count % 8;
  for (int64_t i = 0; i < whole; i += 8) Isa::halves_to_floats(values + i, destination + i);
  for (int64_t i = whole; i < count; ++i) destination[i] = Isa::half_to_float(values[i]);
}

// destination[first + i] = source[i] for i < count
inline void store_floats(const float* source, Dtype dtype, int64_t first, int64_t count, void* destination) {
  if (dtype == Dtype::kFloat32) {
    std::memcpy(static_cast<float*>(destination) + first, source, count * sizeof(float));
    return;
  }
  uint16_t* values = static_cast<uint16_t*>(destination) + first;
  if (dtype == Dtype::kBFloat16) {
    for (int64_t i = 0; i < count; ++i) values[i] = float_to_bf16(source[i]);
    return;
  }
  const int64_t rest = count % 8, whole = count - rest;
  for (int64_t i = 0; i < whole; i += 8) Isa::floats_to_halves(source + i, values + i);
  float last[8] = {};
  uint16_t halves[8];
  std::memcpy(last, source + whole, rest * sizeof(float));
  Isa::floats_to_halves(last, halves);
  std::memcpy(values + whole, halves, rest * sizeof(uint16_t));
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
