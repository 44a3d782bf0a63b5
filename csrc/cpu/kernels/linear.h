// y = x @ (D + S).T + bias, for any format. One tile of 16 rows is the unit of work and belongs to one thread, so the
// result does not depend on the number of threads.
//
//   one token    weights are decoded in registers and used at once
//   more         the weights of a stretch are decoded once into a panel that stays in the first-level cache, then used
//                for blocks of tokens whose sums stay in registers
//
// The sparse part of a tile is worked off between the dense segments of one token, and after those of more tokens.
#pragma once

#include "arguments.h"
#include "kernels/inputs.h"
#include "kernels/panel.h"
#include "kernels/parallel.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kUnrolledSlices = Isa::kUnrolledSlices;

// Adds the bias to the outputs y [row] of one tile and token, and stores those of rows that exist. Changes y.
inline void write_outputs(const LinearArguments& arguments, int64_t tile, int64_t token, float* y) {
  const int64_t out_features = arguments.weight.out_features, first = tile * kTileRows;
  const int64_t rows = smaller<int64_t>(kTileRows, out_features - first);
  if (arguments.bias != nullptr) {
    float bias[kTileRows] = {};
    load_floats(arguments.bias, arguments.bias_dtype, first, rows, bias);
    for (int row = 0; row < kTileRows; ++row) y[row] += bias[row];
  }
  store_floats(y, arguments.x_dtype, token * out_features + first, rows, arguments.y);
}

template <class Format>
class Linear {
  using Products = typename Format::Products;
  using Input = typename Products::Input;
  static constexpr int kSlices = Isa::kSlices;
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;
  static constexpr int kPanelStep = Panel<Products>::kStep;

 public:
  explicit Linear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        segments_(weight_),
        offsets_(Offsets::of<Format>()),
        inputs_(arguments, segments_, Format::kCentered ? &offsets_ : nullptr, weight_.sparse.words != nullptr),
        tiles_((weight_.out_features + kTileRows - 1) / kTileRows),
        tile_bytes_((weight_.in_features + kBlockInputs - 1) / kBlockInputs * kBlockBytes) {}

  void run() {
    parallel(arguments_.threads, [this](const Team& team) {
      inputs_.prepare(team);
      const auto [begin, end] = team.share(tiles_);
      for (int64_t tile = begin; tile < end; ++tile) {
        if (arguments_.tokens == 1) {
          one_token(tile);
        } else {
          batch(tile);
        }
      }
    });
  }

 private:
  void one_token(int64_t tile) const {
    Format format(weight_, segments_.groups(), tile);
    const uint8_t* codes = weight_.codes + tile * tile_bytes_;
    const Input* x = inputs_.row(0);
    Floats sums[kSlices];
    for (Floats& sum : sums) sum = Isa::splat(0.0f);
    SparseSums sparse(weight_, tile, inputs_.transposed(0));
    const int64_t stretches = (segments_.in_padded() + kStretchInputs - 1) / kStretchInputs;
    const int64_t layers_per_stretch = (sparse.layers() + stretches - 1) / stretches;

    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      format.select_group(segment.group);
      Floats even[kSlices], odd[kSlices];  // of even and odd steps: two independent chains of additions
#pragma GCC unroll kUnrolledSlices
      for (int slice = 0; slice < kSlices; ++slice) {
        even[slice] = initial_sum(format, slice, 0, index);
        odd[slice] = Isa::splat(0.0f);
      }
      for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
        const uint8_t* block_codes = codes + block * kBlockBytes;
        const Input* block_inputs = x + block * kBlockInputs;
        prefetch_block<kBlockBytes>(block_codes);
#pragma GCC unroll kUnrolledSlices
        for (int slice = 0; slice < kSlices; ++slice) {
          format.template decode<first.value, last.value>(
              block_codes, slice, [&](auto step, auto weights) REQUANT_INLINE {
                Floats& sum = step.value % 2 == 0 ? even[slice] : odd[slice];
                unroll<0, Products::kRegisters>([&](auto part) REQUANT_INLINE {
                  const Input* inputs =
                      block_inputs + step.value * kStepInputs + part.value * Products::kRegisterInputs;
                  sum = Products::multiply_add(weights.parts[part.value], inputs, sum);
                });
              });
        }
      });
#pragma GCC unroll kUnrolledSlices
      for (int slice = 0; slice < kSlices; ++slice) {
        sums[slice] = Isa::multiply_add(Isa::add(even[slice], odd[slice]),
                                        Isa::splat_rows(format.scales() + slice * Isa::kRows), sums[slice]);
      }
      if (segment.ends_stretch) sparse.add_layers(layers_per_stretch);
    }
    alignas(64) float y[kTileRows];
    Isa::sum_rows(sums, y);
    sparse.finish(y);
    write_outputs(arguments_, tile, 0, y);
  }

  void batch(int64_t tile) const {
    Format format(weight_, segments_.groups(), tile);
    Floats sums[kMaxTokens * kSlices];
    for (int64_t i = 0; i < arguments_.tokens * kSlices; ++i) sums[i] = Isa::splat(0.0f);
    alignas(64) float sparse_sums[kTileRows * kMaxTokens];
    for (int i = 0; i < kTileRows * inputs_.columns; ++i) sparse_sums[i] = 0;
    alignas(64) Input panel[kStretchInputs / kStepInputs * kPanelStep];

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
    if (weight_.sparse.words != nullptr) add_sparse_batch(tile, sparse_sums);
    for (int64_t token = 0; token < arguments_.tokens; ++token) {
      alignas(64) float y[kTileRows];
      Isa::sum_rows(sums + token * kSlices, y);
      for (int row = 0; row < kTileRows; ++row) y[row] += sparse_sums[row * inputs_.columns + token];
      write_outputs(arguments_, tile, token, y);
    }
  }

  void decode_panel(const Format& format, int64_t tile, const Segment& segment, Input* panel) const {
    const uint8_t* codes = weight_.codes + tile * tile_bytes_;
    for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
      prefetch_block<kBlockBytes>(codes + block * kBlockBytes);
      Input* block_panel = panel + block * kBlockInputs % kStretchInputs / kStepInputs * kPanelStep;
      Panel<Products>::template decode<first.value, last.value>(format, codes + block * kBlockBytes, block_panel);
    });
  }

  void multiply_segment(const Format& format, int64_t index, const Input* panel, Floats* sums) const {
    const Segment& segment = segments_[index];
    const int64_t steps = (segment.end - segment.begin) / kStepInputs;
    const Input* weights = panel + segment.begin % kStretchInputs / kStepInputs * kPanelStep;
    const int64_t blocks = (arguments_.tokens + Isa::kBatchTokens - 1) / Isa::kBatchTokens;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = arguments_.tokens * block / blocks, end = arguments_.tokens * (block + 1) / blocks;
      multiply_panel<Products>(
          {weights, steps * Products::kRegisters, inputs_.row(first) + segment.begin, inputs_.row_stride(),
           format.scales(), format.zeros(), inputs_.sums(first) + index, segments_.count()},
          static_cast<int>(end - first), sums + first * kSlices);
    }
  }

  void add_sparse_batch(int64_t tile, float* sums) const {
    if (inputs_.columns == 8) add_sparse<8>(weight_, tile, inputs_.transposed(0), sums);
    if (inputs_.columns == 16) add_sparse<16>(weight_, tile, inputs_.transposed(0), sums);
    if (inputs_.columns == 32) add_sparse<32>(weight_, tile, inputs_.transposed(0), sums);
  }

  // What the sum over a segment starts from.
  REQUANT_INLINE Floats initial_sum(const Format& format, int slice, int64_t token, int64_t segment) const {
    if constexpr (!Format::kCentered) return Isa::splat(0.0f);
    return correction(format.zeros() + slice * Isa::kRows, inputs_.sums(token)[segment]);
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
  Offsets offsets_;
  Inputs<Products> inputs_;
  int64_t tiles_;
  int64_t tile_bytes_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
