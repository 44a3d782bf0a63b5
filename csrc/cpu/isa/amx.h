// Matrix tiles (AMX): 16 rows of weights x 32 inputs times 32 inputs x 16 tokens in one instruction, bf16 products with
// fp32 sums. Included by avx512.h where the compiler has them; the processor is asked at run time (dispatch.cpp).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/tile16.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

struct MatrixTiles {
  static constexpr int kInputs = 32;
  static constexpr int kTokens = 16;
  static constexpr int kElements = kTileRows * kInputs;  // of a tile of weights [row][input] and of one of inputs

  // Every thread configures its tiles before and releases them after use.
  static void configure() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64};
      uint8_t rows[16] = {16, 16, 16};
    } configuration;
    barrier();
    _tile_loadconfig(&configuration);
  }
  static void release() { _tile_release(); }

  // products [row][token] = sum over `count` tiles of weights [row][32 inputs] and inputs [16 pairs][token][2].
  static void multiply(const uint16_t* weights, const uint16_t* inputs, int64_t count, float* products) {
    barrier();
    _tile_zero(0);
    for (int64_t i = 0; i < count; ++i) {
      _tile_loadd(1, weights + i * kElements, 64);
      _tile_loadd(2, inputs + i * kElements, 64);
      _tile_dpbf16ps(0, 1, 2);
    }
    _tile_stored(0, products, 64);
    barrier();
  }

  // Four rows of eight weights, to weights[row * kInputs].
  static void store_rows(__m512i four_rows, uint16_t* weights) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(weights), _mm512_castsi512_si128(four_rows));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(weights + kInputs), _mm512_extracti32x4_epi32(four_rows, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(weights + 2 * kInputs), _mm512_extracti32x4_epi32(four_rows, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(weights + 3 * kInputs), _mm512_extracti32x4_epi32(four_rows, 3));
  }

 private:
  // GCC's tile intrinsics do not say that they read memory.
  static void barrier() { asm volatile("" ::: "memory"); }
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
