// The batch kernel on matrix tiles, for two tiles of rows at a time: the weights of a stretch are decoded into a panel
// that stays in the first-level cache, in the order of the matrix unit; the sums are [token][row].
#pragma once

#include "kernels/inputs.h"
#include "kernels/matrix_panel.h"
#include "kernels/outputs.h"
#include "kernels/parallel.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
class MatrixLinear {
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;
  static constexpr int kRowTiles = MatrixTiles::kTogether;
  static constexpr int kRows = kRowTiles * kTileRows;
  static constexpr int kPanel = kStretchInputs * kTileRows;

 public:
  explicit MatrixLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        segments_(weight_),
        inputs_(arguments, segments_.in_padded()),
        columns_(static_cast<int>(inputs_.token_tiles()) * MatrixTiles::kTokens),
        tiles_(tile_count(weight_)),
        sparse_(weight_.sparse.words != nullptr ? arguments.tokens : 0, segments_.in_padded()),
        x_sums_(Format::kCentered ? segments_.count() * columns_ : 0) {}

  void run() {
    parallel(arguments_.threads, [&](const Team& team) {
      const auto [first, last] = team.share(inputs_.token_tiles());
      for (int64_t token_tile = first; token_tile < last; ++token_tile) inputs_.prepare(token_tile);
      const auto [first_segment, last_segment] = team.share(segments_.count());
      for (int64_t index = first_segment; index < last_segment; ++index) prepare_segment(index);
      sparse_.store_zeros(team);
      team.wait_for_all();
      MatrixTiles::configure();
      const auto [begin, end] = team.share((tiles_ + kRowTiles - 1) / kRowTiles);
      for (int64_t pair = begin; pair < end; ++pair) run_tiles(pair * kRowTiles);
      MatrixTiles::release();
    });
  }

 private:
  void prepare_segment(int64_t index) {
    const Segment& segment = segments_[index];
    const int64_t in_features = weight_.in_features, length = segment.end - segment.begin;
    const int64_t inside = smaller(length, in_features - segment.begin);
    if (x_sums_.data() == nullptr && sparse_.blocks() == 0) return;
    for (int64_t token = 0; token < columns_; ++token) {
      alignas(64) float x[kStretchInputs] = {};
      if (token < arguments_.tokens) {
        load_floats(arguments_.x, arguments_.x_dtype, token * in_features + segment.begin, inside, x);
      }
      if (Format::kCentered) {
        x_sums_.data()[index * columns_ + token] = sums_of(x, segment.begin, length, Offsets::of<Format>());
      }
      if (token < arguments_.tokens && sparse_.blocks() > 0) sparse_.store(token, segment.begin, length, x);
    }
  }

  // Tiles first_tile and, if there is one, the next.
  void run_tiles(int64_t first_tile) const {
    const int64_t last_tile = smaller(first_tile + 1, tiles_ - 1), row_tiles = last_tile - first_tile + 1;
    Format formats[kRowTiles] = {{weight_, segments_.groups(), first_tile}, {weight_, segments_.groups(), last_tile}};
    alignas(64) float sums[kMaxTokens * kRows] = {};  // [token][row]
    alignas(64) uint16_t panels[kRowTiles * kPanel];
    int64_t first = 0;  // segment of the stretch
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      for (int i = 0; i < row_tiles; ++i) decode_panel(formats[i], first_tile + i, segment, panels + i * kPanel);
      if (!segment.ends_stretch) continue;
      for (; first <= index; ++first) multiply_segment(formats, row_tiles, first, panels, sums);
    }
    for (int i = 0; i < row_tiles; ++i) write_tile(first_tile + i, sums + i * kTileRows);
  }

  void decode_panel(const Format& format, int64_t tile, const Segment& segment, uint16_t* panel) const {
    const uint8_t* codes = tile_codes<Format::kBits>(weight_, tile);
    for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
      prefetch_block<kBlockBytes>(codes + block * kBlockBytes);
      alignas(64) uint16_t decoded[Panel<Bf16Products>::kBlock];
      Panel<Bf16Products>::template decode<first.value, last.value>(format, codes + block * kBlockBytes, decoded);
      MatrixPanel::store_block<first.value, last.value>(decoded,
                                                        panel + block * kBlockInputs % kStretchInputs * kTileRows);
    });
  }

  void multiply_segment(Format* formats, int64_t row_tiles, int64_t index, const uint16_t* panels, float* sums) const {
    const Segment& segment = segments_[index];
    alignas(64) float products[kMaxTokens * kRows];
    MatrixTiles::multiply(inputs_.token_tiles(), row_tiles, inputs_.tile(0, segment.begin / MatrixTiles::kInputs),
                          inputs_.stride(), panels + segment.begin % kStretchInputs * kTileRows, kPanel,
                          (segment.end - segment.begin) / MatrixTiles::kInputs, true, products, kRows);
    for (int i = 0; i < row_tiles; ++i) {
      formats[i].select_group(segment.group);
      const Floats scale = Isa::load(formats[i].scales());
      const Floats zero = Format::kCentered ? Isa::load(formats[i].zeros()) : scale;
      for (int64_t token = 0; token < arguments_.tokens; ++token) {  // a register holds the 16 rows of one token
        const int64_t place = token * kRows + i * kTileRows;
        Floats product = Isa::load(products + place);
        if constexpr (Format::kCentered) {
          const InputSums& x = x_sums_.data()[index * columns_ + token];
          product = Isa::subtract(product, Isa::multiply_add(zero, Isa::splat(x.x), Isa::splat(x.offset_x)));
        }
        Isa::store(sums + place, Isa::multiply_add(scale, product, Isa::load(sums + place)));
      }
    }
  }

  void write_tile(int64_t tile, float* sums) const {
    add_sparse_sums(weight_, tile, sparse_, sums, kRows);
    for (int64_t token = 0; token < arguments_.tokens; ++token) {
      write_outputs(arguments_, tile, token, sums + token * kRows);
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
  MatrixInputs inputs_;
  int columns_;  // tokens, up to a multiple of the tile's
  int64_t tiles_;
  SparseInputs sparse_;
  Buffer<InputSums> x_sums_;  // [segment][columns_]
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
