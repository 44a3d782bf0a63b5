// y = x @ (D + S).T + bias with x rounded to 8 bits where it meets D: integer products, exact, and per section
//
//   y += scale * scale of x * (sum of bytes * integers - zero * sum of integers)
//
// Weights are decoded in registers and used at once for a few tokens, whose sums stay in registers, too. More tokens
// decode them anew from the first-level cache, section by section: that is cheaper than to store what was decoded.
//
// The sparse part takes x as it is: between the sections of one token, and after those of more tokens, as in decode.h
// and batch.h.
#pragma once

#include "arguments.h"
#include "kernels/byte_weights.h"
#include "kernels/outputs.h"
#include "kernels/panel.h"
#include "kernels/rounded_inputs.h"
#include "kernels/sections.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Format>
class RoundedLinear {
  using Integers = Isa::Integers;
  static constexpr int kSlices = Isa::kSlices;
  static constexpr int kTogether = Isa::kPanelSlices;
  static constexpr int kMostTokens = Isa::kPanelTokens;  // whose sums fit the register file
  static constexpr int kBlockBytes = Block<Format::kBits>::kBytes;

 public:
  explicit RoundedLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        sections_(weight_),
        inputs_(arguments, sections_, Block<Format::kBits>::kStepsPerPlane / 2, weight_.sparse.words != nullptr) {}

  void run() {
    for_each_tile(arguments_, inputs_,
                  [this](int64_t tile) { arguments_.tokens == 1 ? one_token(tile) : batch(tile); });
  }

 private:
  void one_token(int64_t tile) const {
    Format format(weight_, sections_.groups(), tile);
    alignas(64) float y[kTileRows] = {};
    SparseSums<1> sparse(weight_, tile, inputs_.sparse().block(0));
    const int64_t layers_per_section = (sparse.layers() + sections_.count() - 1) / sections_.count();
    for (int64_t index = 0; index < sections_.count(); ++index) {
      format.select_group(sections_[index].group);
      add_section<1>(format, tile, index, 0, true, y);
      sparse.add_layers(layers_per_section);
    }
    sparse.finish(y);
    write_outputs(arguments_, tile, 0, y);
  }

  void batch(int64_t tile) const {
    Format format(weight_, sections_.groups(), tile);
    alignas(64) float y[kMaxTokens * kTileRows] = {};
    const int64_t tokens = arguments_.tokens, blocks = (tokens + kMostTokens - 1) / kMostTokens;
    for (int64_t index = 0; index < sections_.count(); ++index) {
      format.select_group(sections_[index].group);
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t begin = tokens * block / blocks, end = tokens * (block + 1) / blocks;
        unroll<1, kMostTokens + 1>([&](auto count) {
          if (count.value != end - begin) return;
          add_section<count.value>(format, tile, index, begin, block == 0, y + begin * kTileRows);
        });
      }
    }
    add_sparse_sums(weight_, tile, inputs_.sparse(), y, kTileRows);
    for (int64_t token = 0; token < tokens; ++token) write_outputs(arguments_, tile, token, y + token * kTileRows);
  }

  // Adds what a section contributes to the outputs y [token][row] of kTokens tokens.
  template <int kTokens>
  [[gnu::noinline]] void add_section(const Format& format, int64_t tile, int64_t index, int64_t token, bool prefetch,
                                     float* y) const {
    const Section& section = sections_[index];
    const uint8_t* codes = tile_codes<Format::kBits>(weight_, tile) + section.first_block * kBlockBytes;
    const int8_t* x = inputs_.bytes(token, section);
    Integers sums[kTokens][kSlices];
#pragma GCC unroll 1
    for (int slice = 0; slice < kSlices; slice += kTogether) {
      add_products<kTokens>(format, codes, section.blocks, slice, x, prefetch && slice == 0, sums);
    }
    const RoundedSection* rounded = inputs_.section(index, token);
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) add_scaled(format, sums[i], rounded[i], y + i * kTileRows);
  }

  // sums[token][slice] for kTogether slices from first_slice on. Two bytes of a weight are taken together if there are
  // registers for the sums of both, else one after the other.
  template <int kTokens>
  REQUANT_INLINE static void add_products(const Format& format, const uint8_t* codes, int64_t blocks, int first_slice,
                                          const int8_t* x, bool prefetch, Integers (*sums)[kSlices]) {
    constexpr int kBytes = 2 * kTokens <= kMostTokens ? Format::kBytes : 1;
    constexpr int kSums = kTokens * kTogether;
    Integers sum[kBytes][kSums];  // [byte][token, slice]
#pragma GCC unroll 2
    for (int byte = 0; byte < kBytes; ++byte) {
#pragma GCC unroll 24
      for (int i = 0; i < kSums; ++i) sum[byte][i] = Isa::zero_integers();
    }
    unroll<0, Format::kBytes / kBytes>([&](auto pass) REQUANT_INLINE {
      constexpr int kFirst = pass.value * kBytes;
      if constexpr (kFirst > 0) {
#pragma GCC unroll 24
        for (int i = 0; i < kSums; ++i) sum[0][i] = Isa::times_256(sum[0][i]);
      }
      for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* block_codes = codes + block * kBlockBytes;
        if (kFirst == 0 && prefetch) prefetch_block<kBlockBytes>(block_codes);
        add_block<kTokens, kFirst, kBytes>(format, block_codes, first_slice, x + block * kBlockInputs,
                                           blocks * kBlockInputs, sum);
      }
    });
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) {
      Integers total = sum[0][i];
      if constexpr (kBytes == 2) total = Isa::add(Isa::times_256(total), sum[1][i]);
      sums[i / kTogether][first_slice + i % kTogether] = total;
    }
  }

  // Bytes kFirst ..< kFirst + kBytes of the weights of a block, with inputs x [token][stride].
  template <int kTokens, int kFirst, int kBytes>
  REQUANT_INLINE static void add_block(const Format& format, const uint8_t* codes, int first_slice, const int8_t* x,
                                       int64_t stride, Integers (*sums)[kTokens * kTogether]) {
    unroll<0, kBlockRegisters>([&](auto place) REQUANT_INLINE {
      Words weights[kTogether][kBytes];
#pragma GCC unroll 8
      for (int slice = 0; slice < kTogether; ++slice) {
        format.template decode<place.value, kFirst, kBytes>(codes, first_slice + slice, weights[slice]);
      }
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; ++token) {
        const Words inputs = Isa::repeat_bytes(x + token * stride + place.value * kRegisterInputs);
#pragma GCC unroll 2
        for (int byte = 0; byte < kBytes; ++byte) {
#pragma GCC unroll 8
          for (int slice = 0; slice < kTogether; ++slice) {
            Integers& sum = sums[byte][token * kTogether + slice];
            sum = Isa::template add_byte_products<Format::kBelow128>(sum, weights[slice][byte], inputs);
          }
        }
      }
    });
  }

  // Adds the scaled sums of one token to y [row].
  REQUANT_INLINE static void add_scaled(const Format& format, const Integers* slices, const RoundedSection& x,
                                        float* y) {
    constexpr int kFloats = sizeof(Floats) / sizeof(float);
    alignas(64) int32_t sums[kTileRows];
    Isa::sum_rows(slices, sums);
    for (int row = 0; row < kTileRows; row += kFloats) {
      const Floats zero = Isa::load(format.zeros() + row), scale = Isa::load(format.scales() + row);
      const Floats centered = Isa::multiply_add(zero, Isa::splat(-x.sum), Isa::to_floats(sums + row));
      const Floats scaled = Isa::multiply_add(centered, Isa::multiply(scale, Isa::splat(x.scale)), Isa::load(y + row));
      Isa::store(y + row, scaled);
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Sections sections_;
  RoundedInputs inputs_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
