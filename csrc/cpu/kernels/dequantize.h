// Rows of W = D + S, for any format, through a tile that stays in the first-level cache.
//
// The tile is fp32, or bf16 if that is what is wanted. In 16 bits D is rounded before S is added and the sum is rounded
// again.
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/parallel.h"
#include "kernels/products.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Format has Fp32Products; Element is float or uint16_t, a bf16.
template <class Format, class Element>
class Dequantize {
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;
  static constexpr bool kBf16 = sizeof(Element) == sizeof(uint16_t);
  static constexpr int kStepsTogether = 4;  // steps of a row that are stored at once

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
    const uint8_t* codes = tile_codes<Format::kBits>(weight_, tile);
    alignas(64) Element rows[kTileRows * kStretchInputs];
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      format.select_group(segment.group);
      for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
        Element* block_rows = rows + block * kBlockInputs % kStretchInputs;
        for (int slice = 0; slice < Isa::kSlices; ++slice) {
          decode_slice<first.value, last.value>(format, codes + block * kBlockBytes, slice,
                                                block_rows + slice * Isa::kRows * kStretchInputs);
        }
      });
      if (segment.ends_stretch) store_stretch(tile, segment.stretch(), rows);
    }
    if (weight_.sparse.words != nullptr) add_entries(tile);
  }

  // Steps kFirst ..< kLast of one slice of a block; both are multiples of kStepsTogether.
  template <int kFirst, int kLast>
  REQUANT_INLINE static void decode_slice(const Format& format, const uint8_t* block_codes, int slice, Element* rows) {
    const Scaled<Format> value(format, slice);
    Words rounded[kStepsPerBlock];
    format.template decode<kFirst, kLast, 1>(block_codes, slice, [&](auto step, const auto& weights) REQUANT_INLINE {
      const Floats even = value(weights[0].parts[0]), odd = value(weights[0].parts[1]);
      if constexpr (kBf16) {
        rounded[step.value] = Isa::round_to_bf16(even, odd);
      } else {
        Isa::store_rows(even, odd, rows + step.value * kStepInputs, kStretchInputs);
      }
    });
    if constexpr (kBf16) {
      unroll<kFirst / kStepsTogether, kLast / kStepsTogether>([&](auto part) REQUANT_INLINE {
        constexpr int kStep = part.value * kStepsTogether;
        Isa::store_rows(rounded + kStep, rows + kStep * kStepInputs, kStretchInputs);
      });
    }
  }

  // W's rows of the tile were just written, so they are in the cache.
  void add_entries(int64_t tile) const {
    const auto add = [&](auto* w, auto sum) REQUANT_INLINE {
      for_each_entry(weight_, tile, [&](int64_t input, int row, float value) REQUANT_INLINE {
        auto& weight = w[(tile * kTileRows + row - arguments_.row_begin) * weight_.in_features + input];
        weight = sum(weight, value);
      });
    };
    if (arguments_.w_dtype == Dtype::kFloat32) {
      add(static_cast<float*>(arguments_.w), [](float a, float b) { return a + b; });
    } else {
      add(static_cast<uint16_t*>(arguments_.w),
          [](uint16_t a, float b) { return float_to_bf16(bf16_to_float(a) + b); });
    }
  }

  void store_stretch(int64_t tile, int64_t stretch, const Element* rows) const {
    const int64_t input = stretch * kStretchInputs;
    const int64_t inputs = smaller<int64_t>(kStretchInputs, weight_.in_features - input);
    const int64_t end = smaller((tile + 1) * kTileRows, arguments_.row_end);
    for (int64_t row = tile * kTileRows; row < end; ++row) {
      const int64_t place = (row - arguments_.row_begin) * weight_.in_features + input;
      const Element* source = rows + row % kTileRows * kStretchInputs;
      if constexpr (kBf16) {
        std::memcpy(static_cast<uint16_t*>(arguments_.w) + place, source, inputs * sizeof(Element));
      } else {
        store_floats(source, arguments_.w_dtype, place, inputs, arguments_.w);
      }
    }
  }

  const DequantizeArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
};

template <class Format>
void run_dequantize(const DequantizeArguments& arguments) {
  if (arguments.w_dtype == Dtype::kBFloat16) return Dequantize<Format, uint16_t>(arguments).run();
  Dequantize<Format, float>(arguments).run();
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
