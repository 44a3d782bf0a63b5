// Every intrinsic and every line of PTX that the kernels use, under the name of what it does.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/dtype.h"

namespace requant::cuda {

constexpr int kWarpLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// What is read once must not push x and the scales out of the first-level cache.
__device__ __forceinline__ uint32_t load_once(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(value) : "l"(address));
  return value;
}

// Bytes of `low` (0..3) and `high` (4..7) that the four nibbles of `selector` name.
__device__ __forceinline__ uint32_t select_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  return __byte_perm(low, high, selector);
}

// (a & mask) | b in one instruction.
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t mask, uint32_t b) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(mask), "r"(b));
  return result;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// A value that stays in a register. ptxas would rather derive some loop invariants anew in every turn; what comes out
// of a shuffle, be it from the lane itself, it cannot.
__device__ __forceinline__ int keep(int value) {
  return __shfl_sync(kAllLanes, value, static_cast<int>(threadIdx.x % kWarpLanes));
}

// The same for a constant: a second one for an instruction that can hold one. What comes from different lanes stays in
// different registers, as the matrix product wants it, even if it is equal.
__device__ __forceinline__ uint32_t keep_constant(uint32_t value, int lane = 0) {
  return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x % kWarpLanes) == lane ? value : 0, lane);
}

template <class Element>
__device__ __forceinline__ Element* keep(Element* pointer) {
  const auto address = reinterpret_cast<uint64_t>(pointer);
  const auto low = static_cast<uint32_t>(keep(static_cast<int>(address)));
  const auto high = static_cast<uint32_t>(keep(static_cast<int>(address >> 32)));
  return reinterpret_cast<Element*>(static_cast<uint64_t>(high) << 32 | low);
}

// Copies `bytes` bytes into shared memory and zeros up to 16; with 0 bytes `global` may point anywhere. Complete only
// after `wait_for_copies` and a barrier.
__device__ __forceinline__ void copy_16_bytes(uint32_t shared, const void* global, int bytes) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
#else
  *static_cast<uint4*>(__cvta_shared_to_generic(shared)) =
      bytes > 0 ? __ldg(static_cast<const uint4*>(global)) : uint4{};
#endif
}

__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `kPending` of the groups committed by this thread are still on their way.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements; lane 8 i + j names the address of row j of matrix i and receives elements
// (lane / 4, 2 (lane % 4)) and the one to its right of each.
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(address)
               : "memory");
}

// What depends on the 16-bit element type of x. Integers up to 2^kMantissaBits are made of their bits without a
// conversion: or-ed into kMagic they read kMagic's value plus the integer.
template <class Number>
struct Numbers;

// The bits of a number that is neither zero nor subnormal and needs no rounding.
__host__ __device__ constexpr uint32_t encode(float value, int mantissa_bits, int exponent_bias) {
  const uint32_t sign = value < 0;
  float magnitude = value < 0 ? -value : value;
  int exponent = exponent_bias;
  for (; magnitude >= 2; ++exponent) magnitude /= 2;
  for (; magnitude < 1; --exponent) magnitude *= 2;
  const auto mantissa = static_cast<uint32_t>((magnitude - 1) * static_cast<float>(1 << mantissa_bits));
  return sign << 15 | static_cast<uint32_t>(exponent) << mantissa_bits | mantissa;
}

__host__ __device__ constexpr uint32_t twice(uint32_t half_word) { return half_word << 16 | half_word; }

template <>
struct Numbers<__half> {
  static constexpr Dtype kDtype = Dtype::kFloat16;
  static constexpr int kMantissaBits = 10;
  static constexpr int kExponentBias = 15;
  static constexpr uint32_t kMagic = 0x64006400;  // 1024 twice
  static constexpr float kMagicValue = 1024;
  static constexpr uint32_t kOnes = 0x3c003c00;

  __device__ static uint32_t pair(float low, float high) { return bits(__floats2half2_rn(low, high)); }
  __device__ static uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) {
    return bits(__hfma2(half2_of(a), half2_of(b), half2_of(c)));
  }
  __device__ static uint32_t add(uint32_t a, uint32_t b) { return bits(__hadd2(half2_of(a), half2_of(b))); }
  __device__ static float to_float(uint16_t raw) { return __half2float(__ushort_as_half(raw)); }

  // d += a @ b: a 16x16, b 16x8, d 16x8 in the fragment order of mma.m16n8k16.
  __device__ static void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    multiply_half_tile(d, a[0], a[1], b0);
    multiply_half_tile(d, a[2], a[3], b1);
#endif
  }

 private:
  __device__ static __half2 half2_of(uint32_t raw) { return *reinterpret_cast<const __half2*>(&raw); }
  __device__ static uint32_t bits(__half2 pair) { return *reinterpret_cast<const uint32_t*>(&pair); }
  __device__ static void multiply_half_tile(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(b));
  }
};

template <>
struct Numbers<__nv_bfloat16> {
  static constexpr Dtype kDtype = Dtype::kBFloat16;
  static constexpr int kMantissaBits = 7;
  static constexpr int kExponentBias = 127;
  static constexpr uint32_t kMagic = 0x43004300;  // 128 twice
  static constexpr float kMagicValue = 128;
  static constexpr uint32_t kOnes = 0x3f803f80;

  __device__ static uint32_t pair(float low, float high) { return bits(__floats2bfloat162_rn(low, high)); }
  __device__ static uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) {
#if __CUDA_ARCH__ >= 800
    return bits(__hfma2(bfloat162_of(a), bfloat162_of(b), bfloat162_of(c)));
#else
    __trap();  // as in multiply_tile
    return a ^ b ^ c;
#endif
  }
  // As a multiply-add: before sm_90 there is no other bf16 addition.
  __device__ static uint32_t add(uint32_t a, uint32_t b) { return multiply_add(a, kOnes, b); }
  __device__ static float to_float(uint16_t raw) { return __uint_as_float(static_cast<uint32_t>(raw) << 16); }

  __device__ static void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap();  // no bf16 matrix product: the launcher refuses
#endif
  }

 private:
  __device__ static __nv_bfloat162 bfloat162_of(uint32_t raw) { return *reinterpret_cast<const __nv_bfloat162*>(&raw); }
  __device__ static uint32_t bits(__nv_bfloat162 pair) { return *reinterpret_cast<const uint32_t*>(&pair); }
};

// A constant in both halves of a register.
template <class Number>
__host__ __device__ constexpr uint32_t constant_pair(float value) {
  return twice(encode(value, Numbers<Number>::kMantissaBits, Numbers<Number>::kExponentBias));
}

// The raw bits of element `index` of an array of any Dtype; `number_of` makes a float of them when they have arrived.
__device__ __forceinline__ uint32_t load_number(const void* numbers, Dtype dtype, int64_t index) {
  if (dtype == Dtype::kFloat32) return __ldg(static_cast<const uint32_t*>(numbers) + index);
  return __ldg(static_cast<const uint16_t*>(numbers) + index);
}

__device__ __forceinline__ float number_of(uint32_t raw, Dtype dtype) {
  if (dtype == Dtype::kFloat32) return __uint_as_float(raw);
  return dtype == Dtype::kFloat16 ? Numbers<__half>::to_float(raw) : Numbers<__nv_bfloat16>::to_float(raw);
}

__device__ __forceinline__ uint16_t narrow(float value, Dtype dtype) {
  return dtype == Dtype::kFloat16 ? __half_as_ushort(__float2half_rn(value))
                                  : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

}  // namespace requant::cuda
