// y = x W.T of format `trellis`, in three stages (kernels/rotation.h says what W is):
//
//   rotate    x -> inputs of the product, in the rotated basis                          tokens are shared out
//   multiply  with C, and x with S in the original basis                                tiles are shared out
//   finish    scale, rotate back, add what is sparse and the bias                       tokens are shared out
//
// Decoding costs many instructions per weight and no horizontal sum: a column of a tile is one register. A few tokens
// are multiplied with it at once; for more, the prefill kernel decodes C into panels.
#pragma once

#include "arguments.h"
#include "kernels.h"
#include "kernels/panel.h"
#include "kernels/parallel.h"
#include "kernels/rotation.h"
#include "kernels/sparse.h"
#include "kernels/sparse_blocks.h"
#include "kernels/trellis_inputs.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// S x of a few tokens, [tokens][out_padded].
class SparseProducts {
 public:
  explicit SparseProducts(const LinearArguments& arguments)
      : weight_(arguments.weight),
        tokens_(weight_.sparse.words == nullptr ? 0 : arguments.tokens),
        out_padded_(pad_to_tile(weight_.out_features)),
        inputs_(tokens_, weight_.in_features),
        products_(tokens_ * out_padded_) {}

  void store(int64_t token, const float* x) {
    if (tokens_ > 0) inputs_.store(token, 0, weight_.in_features, x);
  }

  // Every thread computes those of its tiles, when all inputs are stored.
  void multiply(const Team& team) {
    const auto [first_tile, end_tile] = team.share(out_padded_ / kTrellisTile);
    for (int64_t tile = first_tile; tile < end_tile && tokens_ > 0; ++tile) {
      float* products = products_.data() + tile * kTrellisTile;
      for (int64_t token = 0; token < tokens_; ++token) {
        std::memset(products + token * out_padded_, 0, kTrellisTile * sizeof(float));
      }
      if (tokens_ == 1) {
        SparseSums<1>(weight_, tile, inputs_.block(0)).finish(products);
      } else {
        add_sparse_sums(weight_, tile, inputs_, products, out_padded_);
      }
    }
  }

  // Every thread of the team calls this, before that.
  void store_zeros(const Team& team) { inputs_.store_zeros(team); }

  // Those of one token, or null if nothing is sparse.
  const float* products(int64_t token) const { return tokens_ == 0 ? nullptr : products_.data() + token * out_padded_; }

 private:
  const Weight& weight_;
  int64_t tokens_, out_padded_;
  SparseInputs inputs_;
  Buffer<float> products_;
};

// As many tokens as TokenInputs holds, or fewer, are multiplied with weights in registers.
template <class Code, int kBits, class TokenInputs>
class TrellisTokens {
  static constexpr int kTileBytes = trellis_tile_bytes(kBits);
  static constexpr int kTokens = TokenInputs::kTokens;

 public:
  explicit TrellisTokens(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        code_(weight_.trellis),
        rotation_(arguments),
        inputs_(rotation_.in_padded),
        sparse_(arguments),
        z_(kTokens * rotation_.out_padded) {}

  void run() {
    parallel(arguments_.threads, [&](const Team& team) {
      const Buffer<float> x(rotation_.in_padded), scratch(rotation_.scratch_size());
      const auto [first, end] = team.share(kTokens);
      for (int64_t token = first; token < end; ++token) rotate(token, x.data(), scratch.data());
      sparse_.store_zeros(team);
      team.wait_for_all();
      const auto [first_tile, end_tile] = team.share(rotation_.out_padded / kTrellisTile);
      for (int64_t tile = first_tile; tile < end_tile; ++tile) multiply(tile);
      sparse_.multiply(team);
      team.wait_for_all();
      for (int64_t token = first; token < smaller(end, arguments_.tokens); ++token) {
        rotation_.finish(z_.data() + token * rotation_.out_padded, inputs_.unit(token) / Code::kUnit,
                         sparse_.products(token), token, scratch.data());
      }
    });
  }

 private:
  void rotate(int64_t token, float* x, float* scratch) {
    if constexpr (kTokens > 1) {
      if (token >= arguments_.tokens) return inputs_.clear(token);
    }
    rotation_.load(token, x);
    sparse_.store(token, x);
    rotation_.rotate(x, scratch);
    inputs_.set(token, x);
  }

  void multiply(int64_t row_tile) const {
    const int64_t tiles = rotation_.in_padded / kTrellisTile;
    const uint8_t* codes = weight_.codes + row_tile * tiles * kTileBytes;
    const auto states = [codes](int64_t tile) REQUANT_INLINE {
      prefetch_block<kTileBytes>(codes + tile * kTileBytes);
      return TileStates<kBits, Code::kValuesPerStep>(codes + tile * kTileBytes);
    };
    FloatLanes totals[kTokens][kParts] = {};
    for (int64_t first = 0; first < tiles; first += kTrellisStretchTiles) {
      inputs_.add_stretch(code_, first, smaller(first + kTrellisStretchTiles, tiles), states, totals);
    }
    float* z = z_.data() + row_tile * kTrellisTile;
    for (int token = 0; token < kTokens; ++token) {
      std::memcpy(z + token * rotation_.out_padded, totals[token], sizeof totals[token]);
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Code code_;
  Rotation rotation_;
  TokenInputs inputs_;
  SparseProducts sparse_;
  Buffer<float> z_;
};

// Any number of tokens; SparseInput: of SparseBlocks. The product has inputs of 16 bits if those of the call have and
// the prefill kernel multiplies them so; rotated fp16 inputs would need the range of fp32.
template <class SparseInput>
void run_trellis_batch(const LinearArguments& arguments, DecodePanels decode, float unit) {
  const bool bf16 = Isa::kHasBf16Products && arguments.x_dtype == Dtype::kBFloat16;
  const Dtype dtype = bf16 ? Dtype::kBFloat16 : Dtype::kFloat32;
  const Rotation rotation(arguments);
  const Buffer<float> z(arguments.tokens * rotation.out_padded);
  const Buffer<uint8_t> rotated(arguments.tokens * rotation.in_padded * (bf16 ? 2 : 4));
  const SparseBlocks<SparseInput> sparse(arguments);

  parallel(arguments.threads, [&](const Team& team) {
    const Buffer<float> x(rotation.in_padded), scratch(rotation.in_padded);
    const auto [first, end] = team.share(arguments.tokens);
    for (int64_t token = first; token < end; ++token) {
      rotation.load(token, x.data());
      rotation.rotate(x.data(), scratch.data());
      store_floats(x.data(), dtype, token * rotation.in_padded, rotation.in_padded, rotated.data());
    }
    sparse.load(team);
  });

  LinearArguments product = arguments;
  product.weight.in_features = rotation.in_padded;
  product.weight.out_features = rotation.out_padded;
  product.weight.sparse = {};
  product.x = rotated.data();
  product.x_dtype = dtype;
  product.bias = nullptr;
  product.y = z.data();
  product.y_dtype = Dtype::kFloat32;
  kPrefill.run(product, decode);

  parallel(arguments.threads, [&](const Team& team) {
    const Buffer<float> scratch(rotation.out_padded);
    sparse.for_each_token(team, [&](int64_t token, const float* products) {
      rotation.finish(z.data() + token * rotation.out_padded, unit, products, token, scratch.data());
    });
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
