// What matrix tiles are fed with: weights and inputs cut into tiles of 32 inputs (isa/amx.h says how they meet).
//
//   panel     [32 inputs][16 pairs of inputs][16 rows][2]
//   inputs    [16 tokens][32 inputs of the row]...: [token tile][input tile][16 tokens][32 inputs]
#pragma once

#include <cstring>

#include "kernels/buffer.h"
#include "kernels/panel.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

struct MatrixPanel {
  // Reorders steps kFirst ..< kLast of one block of a Panel<Bf16Products>.
  template <int kFirst, int kLast>
  REQUANT_INLINE static void store_block(const uint16_t* decoded, uint16_t* panel) {
    constexpr int kStep = Panel<Bf16Products>::kStep;
    unroll<kFirst, kLast>([&](auto step) REQUANT_INLINE {
      MatrixTiles::store_step(decoded + step.value * kStep, panel + step.value * kStep);
    });
  }

  // Where the weight of one row and input stands.
  static int64_t place(int row, int64_t input) { return (input / 2 * kTileRows + row) * 2 + input % 2; }
};

// The bf16 inputs of one call. What is beyond the tokens or the inputs is zero.
class MatrixInputs {
 public:
  MatrixInputs(const LinearArguments& arguments, int64_t in_padded)
      : arguments_(arguments),
        token_tiles_((arguments.tokens + MatrixTiles::kTokens - 1) / MatrixTiles::kTokens),
        stride_(in_padded * MatrixTiles::kTokens),
        tiles_(token_tiles_ * stride_) {}

  void prepare(int64_t token_tile) {
    constexpr int64_t kInputs = MatrixTiles::kInputs;
    const int64_t in_features = arguments_.weight.in_features;
    for (int64_t place = 0; place < MatrixTiles::kTokens; ++place) {
      const int64_t token = token_tile * MatrixTiles::kTokens + place;
      const uint16_t* row = static_cast<const uint16_t*>(arguments_.x) + token * in_features;
      uint16_t* destination = tiles_.data() + token_tile * stride_ + place * kInputs;
      for (int64_t input = 0; input < in_features; input += kInputs, destination += MatrixTiles::kElements) {
        const int64_t inside = token < arguments_.tokens ? smaller(kInputs, in_features - input) : 0;
        std::memcpy(destination, row + input, inside * sizeof(uint16_t));
        std::memset(destination + inside, 0, (kInputs - inside) * sizeof(uint16_t));
      }
    }
  }

  const uint16_t* tile(int64_t token_tile, int64_t input_tile) const {
    return tiles_.data() + token_tile * stride_ + input_tile * MatrixTiles::kElements;
  }
  int64_t token_tiles() const { return token_tiles_; }
  int64_t stride() const { return stride_; }  // elements from one token tile to the next

 private:
  const LinearArguments& arguments_;
  int64_t token_tiles_;
  int64_t stride_;
  Buffer<uint16_t> tiles_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
