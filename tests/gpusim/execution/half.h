// The 16-bit floating-point formats: conversion with a single rounding to nearest even. Without branches, so that loops
// over lanes become vector code.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace gpusim {

struct Half {
  uint16_t bits;
};

struct Bfloat16 {
  uint16_t bits;
};

template <class To, class From>
inline To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

// The NaN that arithmetic in 16 bits gives.
constexpr uint16_t kNan16 = 0x7fff;

inline float to_float(float value) { return value; }

inline double to_float(double value) { return value; }

inline float to_float(Bfloat16 value) { return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

inline float to_float(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  // The exponent bias of float is 112 larger; the product also normalises subnormal numbers.
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  return bit_cast<float>(sign | (magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000 : finite));
}

// Float or double to half. Three cases: too large or NaN; subnormal, where an addition aligns and rounds the mantissa;
// normal, where integer arithmetic rounds it.
template <class Wide, class Bits, int kMantissaBits, int kBias>
inline Half round_to_half(Wide value) {
  constexpr int kDropped = kMantissaBits - 10;
  const Bits all = bit_cast<Bits>(value);
  const Bits sign = all >> (sizeof(Bits) * 8 - 16) & 0x8000;
  const Bits magnitude = all & ~(Bits(1) << (sizeof(Bits) * 8 - 1));
  constexpr Bits kInfinity = Bits(2 * kBias + 1) << kMantissaBits;
  constexpr Bits kTooLarge = Bits(kBias + 16) << kMantissaBits;
  constexpr Bits kNormal = Bits(kBias - 14) << kMantissaBits;
  constexpr Bits kAligner = Bits(kBias - 14 + kDropped) << kMantissaBits;
  const Bits large = magnitude > kInfinity ? Bits(kNan16) : Bits(0x7c00);
  const Bits subnormal = bit_cast<Bits>(bit_cast<Wide>(magnitude) + bit_cast<Wide>(kAligner)) - kAligner;
  const Bits odd = magnitude >> kDropped & 1;
  const Bits normal =
      (magnitude - (Bits(kBias - 15) << kMantissaBits) + (Bits(1) << (kDropped - 1)) - 1 + odd) >> kDropped;
  const Bits result = magnitude >= kTooLarge ? large : magnitude < kNormal ? subnormal : normal;
  return Half{static_cast<uint16_t>((magnitude > kInfinity ? 0 : sign) | result)};
}

template <class T>
T round_to(float value);
template <class T>
T round_to(double value);

template <>
inline Half round_to<Half>(float value) {
  return round_to_half<float, uint32_t, 23, 127>(value);
}
template <>
inline Half round_to<Half>(double value) {
  return round_to_half<double, uint64_t, 52, 1023>(value);
}

template <>
inline Bfloat16 round_to<Bfloat16>(float value) {
  const uint32_t all = bit_cast<uint32_t>(value);
  const uint32_t rounded = (all + 0x7fff + (all >> 16 & 1)) >> 16;
  return Bfloat16{static_cast<uint16_t>((all & 0x7fffffff) > 0x7f800000 ? kNan16 : rounded)};
}

// Inexact results get an odd last bit, so that a later rounding to fewer bits is as good as a single one.
inline float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  uint32_t bits = bit_cast<uint32_t>(nearest);
  const bool exact = static_cast<double>(nearest) == value || value != value;
  bits -= !exact && std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  return bit_cast<float>(exact ? bits : bits | 1);
}

// a + b, an inexact sum with an odd last bit.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);
  uint64_t bits = bit_cast<uint64_t>(sum);
  const bool exact = error == 0 || error != error;
  bits -= !exact && (error > 0) != (sum > 0);
  return bit_cast<double>(exact ? bits : bits | 1);
}

template <>
inline Bfloat16 round_to<Bfloat16>(double value) {
  return round_to<Bfloat16>(round_to_odd(value));
}

template <>
inline float round_to<float>(float value) {
  return value;
}
template <>
inline float round_to<float>(double value) {
  return static_cast<float>(value);
}
template <>
inline double round_to<double>(double value) {
  return value;
}

// a * b + c with one rounding. Products of 16-bit numbers are exact in double; for half so is every sum that matters.
inline Half fused_multiply_add(Half a, Half b, Half c) {
  const double product = static_cast<double>(to_float(a)) * static_cast<double>(to_float(b));
  return round_to<Half>(product + static_cast<double>(to_float(c)));
}
inline Bfloat16 fused_multiply_add(Bfloat16 a, Bfloat16 b, Bfloat16 c) {
  const double product = static_cast<double>(to_float(a)) * static_cast<double>(to_float(b));
  return round_to<Bfloat16>(add_to_odd(product, static_cast<double>(to_float(c))));
}
inline float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused_multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

}  // namespace gpusim
