// Rows of W = D + S, for any format, through a tile of fp32 that stays in the first-level cache.
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/parallel.h"
#include "kernels/products.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Format has Fp32Products.
template <class Format>
class Dequantize {
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;

 public:
  explicit Dequantize(const DequantizeArguments& arguments)
      : arguments_(arguments), weight_(arguments.weight), segments_(weight_) {}

  void run() {
    const int64_t first_tile = arguments_.row_begin / kTileRows;
    const int64_t tiles = (arguments_.row_end + kTileRows - 1) / kTileRows - first_tile;
    parallel(arguments_.threads, [&](const Team& team) {
      const auto [begin, end] = team.share(tiles);
      for (int64_t tile = begin; tile < end; ++tile) run_tile(first_tile + tile);
    });
  }

 private:
  void run_tile(int64_t tile) const {
    Format format(weight_, segments_.groups(), tile);
    const int64_t blocks = (weight_.in_features + kBlockInputs - 1) / kBlockInputs;
    const uint8_t* codes = weight_.codes + tile * blocks * kBlockBytes;
    alignas(64) float rows[kTileRows * kStretchInputs];
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      format.select_group(segment.group);
      for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
        float* block_rows = rows + block * kBlockInputs % kStretchInputs;
        for (int slice = 0; slice < Isa::kSlices; ++slice) {
          const Floats scale = Isa::splat_rows(format.scales() + slice * Isa::kRows);
          const auto value = [&](Floats decoded) REQUANT_INLINE {
            if constexpr (Format::kCentered) {
              decoded = Isa::subtract(decoded, Isa::splat_rows(format.centers() + slice * Isa::kRows));
            }
            return Isa::multiply(decoded, scale);
          };
          float* slice_rows = block_rows + slice * Isa::kRows * kStretchInputs;
          format.template decode<first.value, last.value>(
              codes + block * kBlockBytes, slice, [&](auto step, Fp32Products::Weights weights) REQUANT_INLINE {
                Isa::store_rows(value(weights.parts[0]), value(weights.parts[1]), slice_rows + step.value * kStepInputs,
                                kStretchInputs);
              });
        }
      });
      if (segment.ends_stretch) finish_stretch(tile, segment.stretch(), rows);
    }
  }

  void finish_stretch(int64_t tile, int64_t stretch, float* rows) const {
    if (weight_.sparse.entries != nullptr) {
      for_each_entry(weight_, tile * segments_.stretches() + stretch, [&](Entry entry) REQUANT_INLINE {
        rows[entry.row * kStretchInputs + entry.input] += entry.value;
      });
    }
    const int64_t input = stretch * kStretchInputs;
    const int64_t inputs = smaller<int64_t>(kStretchInputs, weight_.in_features - input);
    const int64_t end = smaller((tile + 1) * kTileRows, arguments_.row_end);
    for (int64_t row = tile * kTileRows; row < end; ++row) {
      const int64_t place = (row - arguments_.row_begin) * weight_.in_features + input;
      store_floats(rows + row % kTileRows * kStretchInputs, arguments_.w_dtype, place, inputs, arguments_.w);
    }
  }

  const DequantizeArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
};

template <class Format>
void run_dequantize(const DequantizeArguments& arguments) {
  Dequantize<Format>(arguments).run();
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
