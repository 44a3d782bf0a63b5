// S x for many tokens, apart from the dense part. The tokens of a block stand side by side, so that one entry meets all
// of them in two registers of sums:
//
//   fp32   [block][input][2][kLanes]   lane t: token t, then token kLanes + t of the block
//   bf16   [block][input][kLanes]      lane t: bit 31              16 15       0
//                                              token kLanes + t      | token t
#pragma once

#include <type_traits>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/lanes.h"
#include "kernels/parallel.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Element: uint16_t for bf16 inputs, else float.
template <class Element>
class SparseBlocks {
  static constexpr int kBlockTokens = 2 * kLanes;
  static constexpr int kLineRegisters = sizeof(Element) / 2;
  using Sums = FloatLanes[kTileRows][2];

 public:
  explicit SparseBlocks(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        tokens_(weight_.sparse.words == nullptr ? 0 : arguments.tokens),
        tiles_(tile_count(weight_)),
        blocks_((tokens_ + kBlockTokens - 1) / kBlockTokens),
        x_(blocks_ * weight_.in_features * kLineRegisters * kLanes),
        stride_((tiles_ + 1) * kTileRows),
        products_(tokens_ * stride_) {}

  // Every thread of the team calls this; then they wait for each other, and call multiply().
  void load(const Team& team) const {
    const auto [begin, end] = team.share((weight_.in_features + kLanes - 1) / kLanes);
    for (int64_t block = 0; block < blocks_; ++block) {
      for (int64_t group = begin; group < end; ++group) load_group(block, group * kLanes);
    }
  }

  void multiply(const Team& team) const {
    const auto [begin, end] = team.share(tiles_);
    for (int64_t block = 0; block < blocks_; ++block) {
      for (int64_t tile = begin; tile < end; ++tile) {
        Sums sums;
        for (auto& row : sums) row[0] = row[1] = FloatLanes{};
        for_each_entry(weight_, tile, [&](int64_t input, int row, float value) REQUANT_INLINE {
          const uint32_t* line = x_line(block, input);
          const Lanes first = load_lanes(line);
          if constexpr (kLineRegisters == 1) {
            add_product(value, first << 16, sums[row][0]);
            add_product(value, first & 0xffff0000, sums[row][1]);
          } else {
            add_product(value, first, sums[row][0]);
            add_product(value, load_lanes(line + kLanes), sums[row][1]);
          }
        });
        store(block, tile, sums);
      }
    }
  }

  // Those of one token, [out_features], or null if nothing is sparse.
  const float* products(int64_t token) const { return tokens_ == 0 ? nullptr : products_.data() + token * stride_; }

 private:
  uint32_t* x_line(int64_t block, int64_t input) const {
    return x_.data() + (block * weight_.in_features + input) * kLineRegisters * kLanes;
  }

  REQUANT_INLINE static void add_product(float value, Lanes x, FloatLanes& sum) {
    sum = multiply_add(splat_lanes(value), reinterpret_cast<FloatLanes>(x), sum);
  }

  // kLanes inputs of all tokens of a block.
  void load_group(int64_t block, int64_t first) const {
    const int64_t count = smaller<int64_t>(kLanes, weight_.in_features - first);
    for (int part = 0; part < kLineRegisters; ++part) {
      FloatLanes lines[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t token = block * kBlockTokens + part * kLanes + lane;
        Lanes x = load_bits(token, first, count);
        if constexpr (kLineRegisters == 1) x = x >> 16 | load_bits(token + kLanes, first, count);
        lines[lane] = reinterpret_cast<FloatLanes>(x);
      }
      transpose(lines);
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(x_line(block, first + i) + part * kLanes, &lines[i], sizeof lines[i]);
      }
    }
  }

  // Inputs as fp32; of a token that there is not, zeros.
  Lanes load_bits(int64_t token, int64_t first, int64_t count) const {
    // As long as GCC believes that `count` may be: fp16 is converted eight at a time.
    alignas(64) float x[16] = {};
    if (token < tokens_) load_floats(arguments_.x, arguments_.x_dtype, token * weight_.in_features + first, count, x);
    return load_lanes(x);
  }

  void store(int64_t block, int64_t tile, const Sums& sums) const {
    for (int part = 0; part < 2; ++part) {
      const int64_t token = block * kBlockTokens + part * kLanes;
      for (int row = 0; row < kTileRows; row += kLanes) {
        FloatLanes rows[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) rows[lane] = sums[row + lane][part];
        transpose(rows);
        for (int64_t i = 0; i < smaller<int64_t>(kLanes, tokens_ - token); ++i) {
          store_lanes(products_.data() + (token + i) * stride_ + tile * kTileRows + row, rows[i]);
        }
      }
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  int64_t tokens_, tiles_, blocks_;
  Buffer<uint32_t> x_;
  int64_t stride_;          // not a power of two, lest the tokens of a tile compete for the same places in the caches
  Buffer<float> products_;  // [token][stride]
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
