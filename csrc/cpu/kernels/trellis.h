// y = x W.T of format `trellis`, W = diag(output_signs) H diag(scale) C H diag(input_signs) + S, in three stages:
//
//   rotate    x [tokens, in] -> H (input_signs x) [tokens, in_padded]                    tokens are shared out
//   multiply  -> scale C (...) [tokens, out_padded], and S x [tokens, out_padded]        tiles are shared out
//   finish    -> output_signs H (...) + S x + bias = y                                   tokens are shared out
//
// Decoding costs many instructions per weight and no horizontal sum: a column of a tile is one register, multiplied by
// one x of every token of a group.
#pragma once

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/conversion.h"
#include "kernels/hadamard.h"
#include "kernels/parallel.h"
#include "kernels/sparse.h"
#include "kernels/trellis_codes.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int64_t pad_to_tile(int64_t size) { return (size + kTrellisTile - 1) / kTrellisTile * kTrellisTile; }

// The stages around the product, for one token.
class Rotation {
 public:
  explicit Rotation(const Weight& weight)
      : weight_(weight), input_(pad_to_tile(weight.in_features)), output_(pad_to_tile(weight.out_features)) {}

  // x, fp32 [in_features] with space for the padding, in place.
  void rotate(float* x, float* scratch) const {
    const int64_t in_features = weight_.in_features, in_padded = pad_to_tile(in_features);
    for (int64_t i = 0; i < in_features; ++i) x[i] *= weight_.trellis.input_signs[i];
    for (int64_t i = in_features; i < in_padded; ++i) x[i] = 0;
    input_.transform(x, scratch);
  }

  // z [out_padded] -> y of `token`; sparse_sums [out_padded] may be null.
  void finish(float* z, float* scratch, const float* sparse_sums, const LinearArguments& arguments,
              int64_t token) const {
    const int64_t out_features = weight_.out_features;
    output_.transform(z, scratch);
    if (arguments.bias != nullptr) load_floats(arguments.bias, arguments.bias_dtype, 0, out_features, scratch);
    for (int64_t i = 0; i < out_features; ++i) {
      z[i] = z[i] * weight_.trellis.output_signs[i] + (arguments.bias != nullptr ? scratch[i] : 0);
    }
    for (int64_t i = 0; i < out_features && sparse_sums != nullptr; ++i) z[i] += sparse_sums[i];
    store_floats(z, arguments.x_dtype, token * out_features, out_features, arguments.y);
  }

 private:
  const Weight& weight_;
  Hadamard input_, output_;
};

template <class Code, int kBits>
class TrellisProduct {
  using States = TileStates<kBits, Code::kValuesPerStep>;

 public:
  explicit TrellisProduct(const Weight& weight)
      : code_(weight.trellis), codes_(weight.codes), tiles_(pad_to_tile(weight.in_features) / kTrellisTile) {}

  // sums[token][row] of row tile `row_tile`, x [token][in_padded], for tokens <= kMaxTogether.
  void multiply(int64_t row_tile, const float* x, int tokens, float* sums) const {
    unroll<1, kMaxTogether + 1>([&](auto count) {
      if (count.value == tokens) multiply_tokens<count.value>(row_tile, x, sums);
    });
  }

  // values [16][in_padded] of row tile `row_tile` times kUnit.
  void decode(int64_t row_tile, float* values) const {
    const int64_t stride = tiles_ * kTrellisTile;
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      const States states(tile_codes(row_tile, tile));
      unroll<0, kParts * kParts>([&](auto block) REQUANT_INLINE {
        constexpr int kPart = block.value / kParts, kFirst = block.value % kParts * kLanes;
        FloatLanes lanes[kLanes];
        unroll<0, kLanes>([&](auto i) REQUANT_INLINE {
          constexpr int kColumn = kFirst + i.value;
          lanes[i.value] = code_.template value<kColumn>(states.template states<kColumn>(kPart));
        });
        transpose(lanes);
        float* place = values + kPart * kLanes * stride + tile * kTrellisTile + kFirst;
        for (int row = 0; row < kLanes; ++row) store_lanes(place + row * stride, lanes[row]);
      });
    }
  }

  static constexpr int kMaxTogether = kLanes / 2;  // tokens that fit the register file

 private:
  const uint8_t* tile_codes(int64_t row_tile, int64_t tile) const {
    return codes_ + (row_tile * tiles_ + tile) * trellis_tile_bytes(kBits);
  }

  template <int kTokens>
  void multiply_tokens(int64_t row_tile, const float* x, float* sums) const {
    constexpr int kChains = kTokens == 1 ? 2 : 1;  // one chain of dependent sums would be slower than the decoding
    FloatLanes sum[kTokens * kChains][kParts] = {};
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      const States states(tile_codes(row_tile, tile));
      const float* inputs = x + tile * kTrellisTile;
      unroll<0, kTrellisTile>([&](auto column) REQUANT_INLINE {
        unroll<0, kParts>([&](auto part) REQUANT_INLINE {
          const FloatLanes value = code_.template value<column.value>(states.template states<column.value>(part.value));
          unroll<0, kTokens>([&](auto token) REQUANT_INLINE {
            FloatLanes& total = sum[token.value * kChains + column.value % kChains][part.value];
            const float input = inputs[token.value * tiles_ * kTrellisTile + column.value];
            total = multiply_add(value, splat_lanes(input), total);
          });
        });
      });
    }
    for (int token = 0; token < kTokens; ++token) {
      for (int part = 0; part < kParts; ++part) {
        FloatLanes total = sum[token * kChains][part];
        if constexpr (kChains == 2) total += sum[token * kChains + 1][part];
        store_lanes(sums + token * kTrellisTile + part * kLanes, total);
      }
    }
  }

  Code code_;
  const uint8_t* codes_;
  int64_t tiles_;  // side by side
};

// The factors of the rows of a row tile: the scale over the code's unit.
template <class Code>
void load_row_factors(const Weight& weight, int64_t row_tile, float* factors) {
  load_floats(weight.scale, weight.scale_dtype, row_tile * kTrellisTile, kTrellisTile, factors);
  for (int row = 0; row < kTrellisTile; ++row) factors[row] /= Code::kUnit;
}

// sums[row] = the rows of S x of one tile; x follows a zero.
inline void sum_sparse(const Weight& weight, int64_t tile, const float* x, float* sums) {
  for (int row = 0; row < kTrellisTile; ++row) sums[row] = 0;
  SparseSums<1>(weight, tile, x).finish(sums);
}

template <class Code, int kBits>
class TrellisLinear {
  using Product = TrellisProduct<Code, kBits>;

 public:
  explicit TrellisLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        in_padded_(pad_to_tile(weight_.in_features)),
        out_padded_(pad_to_tile(weight_.out_features)),
        sparse_(weight_.sparse.words != nullptr),
        rotation_(weight_),
        product_(weight_),
        sparse_inputs_(sparse_ ? arguments.tokens : 0, weight_.in_features),
        rotated_(arguments.tokens * in_padded_),
        z_(arguments.tokens * out_padded_),
        sparse_sums_(sparse_ ? arguments.tokens * out_padded_ : 0) {}

  void run() {
    parallel(arguments_.threads, [&](const Team& team) {
      const Buffer<float> scratch(in_padded_ > out_padded_ ? in_padded_ : out_padded_);
      const auto [first_token, last_token] = team.share(arguments_.tokens);
      for (int64_t token = first_token; token < last_token; ++token) {
        float* x = rotated_.data() + token * in_padded_;
        load_floats(arguments_.x, arguments_.x_dtype, token * weight_.in_features, weight_.in_features, x);
        if (sparse_) sparse_inputs_.store(token, 0, weight_.in_features, x);
        rotation_.rotate(x, scratch.data());
      }
      sparse_inputs_.clear_rest(team);
      team.wait_for_all();
      const auto [first_tile, last_tile] = team.share(out_padded_ / kTrellisTile);
      for (int64_t tile = first_tile; tile < last_tile; ++tile) multiply(tile);
      team.wait_for_all();
      for (int64_t token = first_token; token < last_token; ++token) {
        rotation_.finish(z_.data() + token * out_padded_, scratch.data(),
                         sparse_ ? sparse_sums_.data() + token * out_padded_ : nullptr, arguments_, token);
      }
    });
  }

 private:
  void multiply(int64_t tile) const {
    alignas(64) float factors[kTrellisTile], sums[Product::kMaxTogether * kTrellisTile];
    load_row_factors<Code>(weight_, tile, factors);
    for (int64_t first = 0; first < arguments_.tokens; first += Product::kMaxTogether) {
      const int tokens = static_cast<int>(smaller<int64_t>(Product::kMaxTogether, arguments_.tokens - first));
      product_.multiply(tile, rotated_.data() + first * in_padded_, tokens, sums);
      for (int token = 0; token < tokens; ++token) {
        float* z = z_.data() + (first + token) * out_padded_ + tile * kTrellisTile;
        for (int row = 0; row < kTrellisTile; ++row) z[row] = sums[token * kTrellisTile + row] * factors[row];
      }
    }
    if (!sparse_) return;
    const TileSparseSums sparse(weight_, tile, sparse_inputs_);
    for (int64_t token = 0; token < arguments_.tokens; ++token) {
      float* sums_of_token = sparse_sums_.data() + token * out_padded_ + tile * kTrellisTile;
      for (int row = 0; row < kTrellisTile; ++row) sums_of_token[row] = 0;
      sparse.add_to(token, sums_of_token);
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  int64_t in_padded_, out_padded_;
  bool sparse_;
  Rotation rotation_;
  Product product_;
  SparseInputs sparse_inputs_;
  Buffer<float> rotated_, z_, sparse_sums_;
};

// w[row_end - row_begin, in_padded] = rows of diag(scale) C: W in its rotated basis, without S.
template <class Code, int kBits>
void decode_rotated(const DequantizeArguments& arguments) {
  const Weight& weight = arguments.weight;
  const TrellisProduct<Code, kBits> product(weight);
  const int64_t in_padded = pad_to_tile(weight.in_features), first_tile = arguments.row_begin / kTrellisTile;
  parallel(arguments.threads, [&](const Team& team) {
    const Buffer<float> values(kTrellisTile * in_padded);
    const auto [begin, end] = team.share((arguments.row_end + kTrellisTile - 1) / kTrellisTile - first_tile);
    for (int64_t tile = begin; tile < end; ++tile) {
      float factors[kTrellisTile];
      load_row_factors<Code>(weight, first_tile + tile, factors);
      product.decode(first_tile + tile, values.data());
      for (int row = 0; row < kTrellisTile; ++row) {
        float* row_values = values.data() + row * in_padded;
        for (int64_t i = 0; i < in_padded; ++i) row_values[i] *= factors[row];
        store_floats(row_values, arguments.w_dtype, (tile * kTrellisTile + row) * in_padded, in_padded, arguments.w);
      }
    }
  });
}

// The stages around a product that somebody else computes, for any number of tokens.
inline void rotate_inputs(const LinearArguments& arguments, float* rotated) {
  const Weight& weight = arguments.weight;
  const Rotation rotation(weight);
  const int64_t in_padded = pad_to_tile(weight.in_features);
  parallel(arguments.threads, [&](const Team& team) {
    const Buffer<float> scratch(in_padded);
    const auto [begin, end] = team.share(arguments.tokens);
    for (int64_t token = begin; token < end; ++token) {
      float* x = rotated + token * in_padded;
      load_floats(arguments.x, arguments.x_dtype, token * weight.in_features, weight.in_features, x);
      rotation.rotate(x, scratch.data());
    }
  });
}

inline void finish_outputs(const LinearArguments& arguments, float* z) {
  const Weight& weight = arguments.weight;
  const Rotation rotation(weight);
  const int64_t out_padded = pad_to_tile(weight.out_features);
  const bool sparse = weight.sparse.words != nullptr;
  parallel(arguments.threads, [&](const Team& team) {
    const Buffer<float> scratch(out_padded), x(sparse ? 1 + weight.in_features : 0), sums(sparse ? out_padded : 0);
    const auto [begin, end] = team.share(arguments.tokens);
    for (int64_t token = begin; token < end; ++token) {
      if (sparse) {
        x.data()[0] = 0;
        load_floats(arguments.x, arguments.x_dtype, token * weight.in_features, weight.in_features, x.data() + 1);
        for (int64_t tile = 0; tile < out_padded / kTrellisTile; ++tile) {
          sum_sparse(weight, tile, x.data() + 1, sums.data() + tile * kTrellisTile);
        }
      }
      rotation.finish(z + token * out_padded, scratch.data(), sparse ? sums.data() : nullptr, arguments, token);
    }
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
