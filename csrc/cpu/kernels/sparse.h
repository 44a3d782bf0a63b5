// The sparse part of one stretch of a tile (picture: common/sparse_index.h), added while the stretch's inputs are warm.
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

struct Entry {
  int input;  // within the stretch
  int row;    // within the tile
  float value;
};

// use(Entry) for every entry of (tile, stretch).
template <class Use>
REQUANT_INLINE inline void for_each_entry(const Weight& weight, int64_t tile_and_stretch, Use use) {
  const uint32_t* entry = weight.sparse.entries + weight.sparse.offsets[tile_and_stretch];
  const uint32_t* end = weight.sparse.entries + weight.sparse.offsets[tile_and_stretch + 1];
  const auto run = [&](auto to_float) REQUANT_INLINE {
    for (; entry != end; ++entry) {
      use(Entry{static_cast<int>(*entry & kEntryInputMask), static_cast<int>(*entry >> kEntryInputBits & kEntryRowMask),
                to_float(static_cast<uint16_t>(*entry >> kEntryValueShift))});
    }
  };
  if (weight.sparse_value_dtype == Dtype::kBFloat16) {
    run([](uint16_t value) REQUANT_INLINE { return bf16_to_float(value); });
  } else {
    run([](uint16_t value) REQUANT_INLINE { return Isa::half_to_float(value); });
  }
}

// sums[row][token] += value * inputs[input][token]; inputs points at the stretch.
template <int kTokens>
REQUANT_INLINE inline void add_sparse(const Weight& weight, int64_t tile_and_stretch, const float* inputs,
                                      float* sums) {
  constexpr int kFloats = sizeof(Isa::Floats) / sizeof(float);
  for_each_entry(weight, tile_and_stretch, [&](Entry entry) REQUANT_INLINE {
    const float* x = inputs + entry.input * kTokens;
    float* sum = sums + entry.row * kTokens;
    [[maybe_unused]] const Isa::Floats value = Isa::splat(entry.value);
    if constexpr (kTokens % kFloats == 0) {
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; token += kFloats) {
        Isa::store(sum + token, Isa::multiply_add(value, Isa::load(x + token), Isa::load(sum + token)));
      }
    } else {
      for (int token = 0; token < kTokens; ++token) sum[token] += entry.value * x[token];
    }
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
