// y = x @ (D + S).T + bias for one token, for any format: weights are decoded in registers of a few rows each and used
// at once. One tile of 16 rows is the unit of work and belongs to one thread, so the result does not depend on the
// number of threads. The sparse part of a tile is worked off between its dense segments.
#pragma once

#include <type_traits>

#include "arguments.h"
#include "kernels/inputs.h"
#include "kernels/outputs.h"
#include "kernels/panel.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kUnrolledSlices = Isa::kUnrolledSlices;

template <class Format>
class DecodeLinear {
  using Products = typename Format::Products;
  using Input = typename Products::Input;
  // fp32 inputs of the dense part are in another order.
  static constexpr bool kSparseCopy = sizeof(Input) == sizeof(float);
  using SparseInput = std::conditional_t<kSparseCopy, float, uint16_t>;
  static constexpr int kSlices = Isa::kSlices;
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;

 public:
  explicit DecodeLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        segments_(weight_),
        offsets_(Offsets::of<Format>()),
        inputs_(arguments, segments_, Format::kCentered ? &offsets_ : nullptr,
                kSparseCopy && weight_.sparse.words != nullptr) {}

  void run() {
    for_each_tile(arguments_, inputs_, [this](int64_t tile) { run_tile(tile); });
  }

 private:
  void run_tile(int64_t tile) const {
    constexpr int kTogether = Isa::kDecodedSlices;
    Format format(weight_, segments_.groups(), tile);
    const uint8_t* codes = tile_codes<Format::kBits>(weight_, tile);
    const Input* x = inputs_.row(0);
    Floats sums[kSlices];
    for (Floats& sum : sums) sum = Isa::splat(0.0f);
    SparseSums<1, SparseInput> sparse(weight_, tile, sparse_x());
    const int64_t stretches = (segments_.in_padded() + kStretchInputs - 1) / kStretchInputs;
    const int64_t layers_per_stretch = (sparse.layers() + stretches - 1) / stretches;

    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      format.select_group(segment.group);
      Floats even[kSlices], odd[kSlices];  // of even and odd steps: two independent chains of additions
#pragma GCC unroll kUnrolledSlices
      for (int slice = 0; slice < kSlices; ++slice) {
        even[slice] = initial_sum(format, slice, index);
        odd[slice] = Isa::splat(0.0f);
      }
      for_each_block(segment, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
        const uint8_t* block_codes = codes + block * kBlockBytes;
        const Input* block_inputs = x + block * kBlockInputs;
        prefetch_block<kBlockBytes>(block_codes);
#pragma GCC unroll kUnrolledSlices
        for (int slice = 0; slice < kSlices; slice += kTogether) {
          format.template decode<first.value, last.value, kTogether>(
              block_codes, slice, [&](auto step, const auto& weights) REQUANT_INLINE {
                unroll<0, Products::kRegisters>([&](auto part) REQUANT_INLINE {
                  const auto inputs = Products::repeat(block_inputs + step.value * kStepInputs +
                                                       part.value * Products::kRegisterInputs);
                  unroll<0, kTogether>([&](auto i) REQUANT_INLINE {
                    Floats& sum = step.value % 2 == 0 ? even[slice + i.value] : odd[slice + i.value];
                    sum = Products::multiply_add(weights[i.value].parts[part.value], inputs, sum);
                  });
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

  const SparseInput* sparse_x() const {
    if constexpr (kSparseCopy) {
      return inputs_.sparse().block(0);
    } else {
      return inputs_.row(0);
    }
  }

  // What the sum over a segment starts from.
  REQUANT_INLINE Floats initial_sum(const Format& format, int slice, int64_t segment) const {
    if constexpr (!Format::kCentered) return Isa::splat(0.0f);
    // A row has four sums in its register; each takes off a quarter.
    const InputSums& sums = inputs_.sums(0)[segment];
    return Isa::multiply_add(Isa::splat_rows(format.zeros() + slice * Isa::kRows), Isa::splat(-0.25f * sums.x),
                             Isa::splat(-0.25f * sums.offset_x));
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
  Offsets offsets_;
  Inputs<Products> inputs_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
