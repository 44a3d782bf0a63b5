// The batch kernel on matrix tiles: like Linear's batch, but the panel is made of tiles [row][32 inputs], the inputs of
// tiles [16 pairs of inputs][16 tokens][2], and the sums of [row][token].
#pragma once

#include "kernels/linear.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
class MatrixLinear {
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;
  static constexpr int kStepsPerTile = MatrixTiles::kInputs / kStepInputs;

 public:
  explicit MatrixLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        segments_(weight_),
        token_tiles_((arguments.tokens + MatrixTiles::kTokens - 1) / MatrixTiles::kTokens),
        columns_(static_cast<int>(token_tiles_) * MatrixTiles::kTokens),
        input_tiles_(segments_.in_padded() / MatrixTiles::kInputs),
        tiled_(token_tiles_ * input_tiles_ * MatrixTiles::kElements),
        transposed_(segments_.in_padded() * columns_),
        x_sums_(segments_.count() * columns_) {}

  void run() {
    const int64_t tiles = (weight_.out_features + kTileRows - 1) / kTileRows;
    parallel(arguments_.threads, [&](const Team& team) {
      const auto [first, last] = team.share(segments_.count());
      for (int64_t index = first; index < last; ++index) prepare_segment(index);
      team.wait_for_all();
      MatrixTiles::configure();
      const auto [begin, end] = team.share(tiles);
      for (int64_t tile = begin; tile < end; ++tile) run_tile(tile);
      MatrixTiles::release();
    });
  }

 private:
  void prepare_segment(int64_t index) {
    const Segment& segment = segments_[index];
    const int64_t in_features = weight_.in_features, length = segment.end - segment.begin;
    const int64_t inside = smaller(length, in_features - segment.begin);
    for (int64_t token = 0; token < columns_; ++token) {
      alignas(64) float x[kStretchInputs] = {};
      if (token < arguments_.tokens) {
        load_floats(arguments_.x, arguments_.x_dtype, token * in_features + segment.begin, inside, x);
      }
      x_sums_.data()[index * columns_ + token] = sum_of(x, length);
      for (int64_t i = 0; i < length; ++i) transposed_.data()[(segment.begin + i) * columns_ + token] = x[i];
      alignas(64) uint16_t values[kStretchInputs];
      Bf16Products::arrange(x, length, values);
      const int64_t place = token % MatrixTiles::kTokens;
      for (int64_t i = 0; i < length; i += 2) {
        uint16_t* pair = input_tile(token / MatrixTiles::kTokens, (segment.begin + i) / MatrixTiles::kInputs) +
                         i % MatrixTiles::kInputs * MatrixTiles::kTokens + 2 * place;
        pair[0] = values[i];
        pair[1] = values[i + 1];
      }
    }
  }

  uint16_t* input_tile(int64_t token_tile, int64_t index) const {
    return tiled_.data() + (token_tile * input_tiles_ + index) * MatrixTiles::kElements;
  }

  void run_tile(int64_t tile) const {
    Format format(weight_, segments_.groups(), tile);
    alignas(64) float sums[kTileRows * kMaxTokens] = {};  // [row][columns_]
    alignas(64) uint16_t panel[kStretchInputs * kTileRows];
    int64_t first = 0;  // segment of the stretch
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      decode_panel(format, tile, segment, panel);
      if (!segment.ends_stretch) continue;
      for (; first <= index; ++first) {
        format.select_group(segments_[first].group);
        multiply_segment(format, first, panel, sums);
      }
    }
    if (weight_.sparse.words != nullptr) {
      if (token_tiles_ == 1) add_sparse<16>(weight_, tile, transposed_.data(), sums);
      if (token_tiles_ == 2) add_sparse<32>(weight_, tile, transposed_.data(), sums);
    }
    for (int64_t token = 0; token < arguments_.tokens; ++token) {
      alignas(64) float y[kTileRows];
      for (int row = 0; row < kTileRows; ++row) y[row] = sums[row * columns_ + token];
      write_outputs(arguments_, tile, token, y);
    }
  }

  void decode_panel(const Format& format, int64_t tile, const Segment& segment, uint16_t* panel) const {
    const int64_t blocks = (weight_.in_features + kBlockInputs - 1) / kBlockInputs;
    const uint8_t* codes = weight_.codes + tile * blocks * kBlockBytes;
    for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
      const uint8_t* block_codes = codes + block * kBlockBytes;
      for (int byte = 0; byte < kBlockBytes; byte += 64) Isa::prefetch(block_codes + kPrefetchBytes + byte);
      uint16_t* block_panel = panel + block * kBlockInputs % kStretchInputs * kTileRows;
      for (int slice = 0; slice < Isa::kSlices; ++slice) {
        format.template decode<first.value, last.value>(
            block_codes, slice, [&](auto step, auto weights) REQUANT_INLINE {
              constexpr int kTile = step.value / kStepsPerTile, kPlace = step.value % kStepsPerTile;
              MatrixTiles::store_rows(weights.parts[0], block_panel + kTile * MatrixTiles::kElements +
                                                            slice * Isa::kRows * MatrixTiles::kInputs +
                                                            kPlace * kStepInputs);
            });
      }
    });
  }

  void multiply_segment(const Format& format, int64_t index, const uint16_t* panel, float* sums) const {
    const Segment& segment = segments_[index];
    const int64_t count = (segment.end - segment.begin) / MatrixTiles::kInputs;
    for (int64_t token_tile = 0; token_tile < token_tiles_; ++token_tile) {
      alignas(64) float products[kTileRows * MatrixTiles::kTokens];
      MatrixTiles::multiply(panel + segment.begin % kStretchInputs * kTileRows,
                            input_tile(token_tile, segment.begin / MatrixTiles::kInputs), count, products);
      const Floats x_sums = Isa::load(x_sums_.data() + index * columns_ + token_tile * MatrixTiles::kTokens);
      for (int row = 0; row < kTileRows; ++row) {  // a register holds the 16 tokens of one row
        float* sum = sums + row * columns_ + token_tile * MatrixTiles::kTokens;
        Floats product = Isa::load(products + row * MatrixTiles::kTokens);
        if constexpr (Format::kCentered) {
          product = Isa::subtract(product, Isa::multiply(Isa::splat(format.centers()[row]), x_sums));
        }
        Isa::store(sum, Isa::multiply_add(Isa::splat(format.scales()[row]), product, Isa::load(sum)));
      }
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
  int64_t token_tiles_;
  int columns_;  // tokens, up to a multiple of the tile's
  int64_t input_tiles_;
  Buffer<uint16_t> tiled_;    // [token tile][input tile][pair of inputs][token][2]
  Buffer<float> transposed_;  // [in_padded][columns_], for the sparse part
  Buffer<float> x_sums_;      // [segment][columns_]
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
