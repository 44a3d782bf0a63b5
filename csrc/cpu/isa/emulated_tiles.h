// Stands in for the intrinsics of AMX in a build that is only tested (`make sanitize`): the kernels for matrix tiles
// then run on any processor with AVX-512 BF16. Tiles are 16 rows of 64 bytes, as MatrixTiles configures them.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace requant::cpu::REQUANT_ISA {
namespace {

class EmulatedTiles {
 public:
  void configure() { configured_ = true; }
  void release() { configured_ = false; }
  void clear(int tile) { std::memset(rows(tile), 0, sizeof tiles_[tile]); }
  void load(int tile, const void* source, int64_t stride) {
    for (int row = 0; row < kRows; ++row) {
      std::memcpy(rows(tile)[row], static_cast<const uint8_t*>(source) + row * stride, kRowBytes);
    }
  }
  void store(int tile, void* destination, int64_t stride) {
    for (int row = 0; row < kRows; ++row) {
      std::memcpy(static_cast<uint8_t*>(destination) + row * stride, rows(tile)[row], kRowBytes);
    }
  }
  // sums [16][16] += a [16][32] * b [16 pairs][16][2]
  void multiply(int sums, int a, int b) {
    for (int row = 0; row < kRows; ++row) {
      for (int pair = 0; pair < kRows; ++pair) {
        for (int column = 0; column < kRows; ++column) {
          float& sum = reinterpret_cast<float*>(rows(sums)[row])[column];
          for (int i = 0; i < 2; ++i) sum += bf16(a, row, 2 * pair + i) * bf16(b, pair, 2 * column + i);
        }
      }
    }
  }

 private:
  static constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;
  using Row = uint8_t[kRowBytes];

  Row* rows(int tile) {
    if (!configured_) __builtin_trap();
    return tiles_[tile];
  }
  float bf16(int tile, int row, int place) {
    const uint32_t bits = static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(rows(tile)[row])[place]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  bool configured_ = false;
  alignas(64) uint8_t tiles_[kTiles][kRows][kRowBytes];
};

thread_local EmulatedTiles emulated_tiles;

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(configuration) (static_cast<void>(configuration), emulated_tiles.configure())
#define _tile_release() emulated_tiles.release()
#define _tile_zero(tile) emulated_tiles.clear(tile)
#define _tile_loadd(tile, source, stride) emulated_tiles.load(tile, source, stride)
#define _tile_stored(tile, destination, stride) emulated_tiles.store(tile, destination, stride)
#define _tile_dpbf16ps(sums, a, b) emulated_tiles.multiply(sums, a, b)
