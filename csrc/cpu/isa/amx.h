// Matrix tiles (AMX): 16 tokens x 32 inputs times 32 inputs x 16 rows of weights in one instruction, bf16 products with
// fp32 sums. Included by avx512.h where the compiler has them; the processor is asked at run time (dispatch.cpp).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/tile16.h"
#ifdef REQUANT_EMULATE_TILES
#include "isa/emulated_tiles.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

struct MatrixTiles {
  static constexpr int kInputs = 32;
  static constexpr int kTokens = 16;
  static constexpr int kElements = kTileRows * kInputs;  // of a tile of weights and of one of inputs
  static constexpr int kTogether = 2;                    // token tiles and row tiles of one multiplication, at most

  // Every thread configures its tiles before and releases them after use.
  static void configure() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    barrier();
    _tile_loadconfig(&configuration);
  }
  static void release() { _tile_release(); }

  // sums [16 * kTokenTiles][sum_stride] += the products of inputs and weights over `count` tiles of 32 inputs each, or
  // are set to them if `from_zero`. One token tile of inputs is [count][16 tokens][32 inputs], the next one follows
  // input_stride elements later; one row tile of weights is [count][16 pairs of inputs][16 rows][2].
  template <int kTokenTiles, int kRowTiles>
  static void multiply(const uint16_t* inputs, int64_t input_stride, const uint16_t* weights, int64_t weight_stride,
                       int64_t count, bool from_zero, float* sums, int64_t sum_stride) {
    constexpr bool kTwoTokens = kTokenTiles == 2, kTwoRows = kRowTiles == 2;
    const int64_t bytes = sum_stride * static_cast<int64_t>(sizeof(float));
    float* second = sums + kTokens * sum_stride;
    barrier();
    if (from_zero) {
      _tile_zero(0);
      if constexpr (kTwoRows) _tile_zero(1);
      if constexpr (kTwoTokens) _tile_zero(2);
      if constexpr (kTwoTokens && kTwoRows) _tile_zero(3);
    } else {
      _tile_loadd(0, sums, bytes);
      if constexpr (kTwoRows) _tile_loadd(1, sums + kTileRows, bytes);
      if constexpr (kTwoTokens) _tile_loadd(2, second, bytes);
      if constexpr (kTwoTokens && kTwoRows) _tile_loadd(3, second + kTileRows, bytes);
    }
    for (int64_t i = 0; i < count; ++i) {
      _tile_loadd(4, inputs + i * kElements, 64);
      _tile_loadd(6, weights + i * kElements, 64);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (kTwoRows) {
        _tile_loadd(7, weights + weight_stride + i * kElements, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (kTwoTokens) {
        _tile_loadd(5, inputs + input_stride + i * kElements, 64);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (kTwoRows) _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, sums, bytes);
    if constexpr (kTwoRows) _tile_stored(1, sums + kTileRows, bytes);
    if constexpr (kTwoTokens) _tile_stored(2, second, bytes);
    if constexpr (kTwoTokens && kTwoRows) _tile_stored(3, second + kTileRows, bytes);
    barrier();
  }

  // The same for 1 or 2 token tiles and 1 or 2 row tiles.
  static void multiply(int64_t token_tiles, int64_t row_tiles, const uint16_t* inputs, int64_t input_stride,
                       const uint16_t* weights, int64_t weight_stride, int64_t count, bool from_zero, float* sums,
                       int64_t sum_stride) {
    const auto run = token_tiles == 2 ? (row_tiles == 2 ? multiply<2, 2> : multiply<2, 1>)
                                      : (row_tiles == 2 ? multiply<1, 2> : multiply<1, 1>);
    run(inputs, input_stride, weights, weight_stride, count, from_zero, sums, sum_stride);
  }

  // One step of eight inputs, from `slices` (four rows of eight weights each) to pairs [4][16 rows][2].
  //
  //   slice s    row 4s: pairs 0 1 2 3 | row 4s + 1: pairs 0 1 2 3 | ...        one dword per pair
  static void store_step(const uint16_t* slices, uint16_t* pairs) {
    // Dwords of rows 0..3 of two slices, for pairs 0 and 1, and for pairs 2 and 3.
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const __m512i second = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    const __m512i slice0 = _mm512_loadu_si512(slices), slice1 = _mm512_loadu_si512(slices + 32);
    const __m512i slice2 = _mm512_loadu_si512(slices + 64), slice3 = _mm512_loadu_si512(slices + 96);
    const __m512i low01 = _mm512_permutex2var_epi32(slice0, first, slice1);
    const __m512i low23 = _mm512_permutex2var_epi32(slice0, second, slice1);
    const __m512i high01 = _mm512_permutex2var_epi32(slice2, first, slice3);
    const __m512i high23 = _mm512_permutex2var_epi32(slice2, second, slice3);
    _mm512_storeu_si512(pairs, _mm512_shuffle_i64x2(low01, high01, 0x44));
    _mm512_storeu_si512(pairs + 32, _mm512_shuffle_i64x2(low01, high01, 0xee));
    _mm512_storeu_si512(pairs + 64, _mm512_shuffle_i64x2(low23, high23, 0x44));
    _mm512_storeu_si512(pairs + 96, _mm512_shuffle_i64x2(low23, high23, 0xee));
  }

 private:
  // GCC's tile intrinsics do not say that they read memory.
  static void barrier() { asm volatile("" ::: "memory"); }
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
