// Rows of W of format `trellis` in its rotated basis: diag(scale) C.
#pragma once

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/conversion.h"
#include "kernels/parallel.h"
#include "kernels/rotation.h"
#include "kernels/trellis_codes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Code, int kBits>
class TrellisDequantize {
 public:
  explicit TrellisDequantize(const DequantizeArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        code_(weight_.trellis),
        in_padded_(pad_to_tile(weight_.in_features)) {}

  void run() const {
    const int64_t first = arguments_.row_begin / kTrellisTile;
    parallel(arguments_.threads, [&](const Team& team) {
      const Buffer<float> values(kTrellisTile * in_padded_);
      const auto [begin, end] = team.share(pad_to_tile(arguments_.row_end) / kTrellisTile - first);
      for (int64_t tile = begin; tile < end; ++tile) {
        decode(first + tile, values.data());
        store(first + tile, tile * kTrellisTile, values.data());
      }
    });
  }

 private:
  // values [16][in_padded] of one row tile times the code's unit.
  void decode(int64_t row_tile, float* values) const {
    const int64_t tiles = in_padded_ / kTrellisTile;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const TileStates<kBits, Code::kValuesPerStep> states(weight_.codes +
                                                           (row_tile * tiles + tile) * trellis_tile_bytes(kBits));
      unroll<0, kParts * kParts>([&](auto block) REQUANT_INLINE {
        constexpr int kPart = block.value / kParts, kFirst = block.value % kParts * kLanes;
        FloatLanes lanes[kLanes];
        unroll<0, kLanes>([&](auto i) REQUANT_INLINE {
          constexpr int kColumn = kFirst + i.value;
          lanes[i.value] = code_.template value<kColumn>(states.template states<kColumn>(kPart));
        });
        transpose(lanes);
        float* place = values + kPart * kLanes * in_padded_ + tile * kTrellisTile + kFirst;
        for (int row = 0; row < kLanes; ++row) store_lanes(place + row * in_padded_, lanes[row]);
      });
    }
  }

  void store(int64_t row_tile, int64_t first_row, float* values) const {
    float scale[kTrellisTile];
    load_floats(weight_.scale, weight_.scale_dtype, row_tile * kTrellisTile, kTrellisTile, scale);
    for (int row = 0; row < kTrellisTile; ++row) {
      float* row_values = values + row * in_padded_;
      for (int64_t i = 0; i < in_padded_; ++i) row_values[i] *= scale[row] / Code::kUnit;
      store_floats(row_values, arguments_.w_dtype, (first_row + row) * in_padded_, in_padded_, arguments_.w);
    }
  }

  const DequantizeArguments& arguments_;
  const Weight& weight_;
  Code code_;
  int64_t in_padded_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
