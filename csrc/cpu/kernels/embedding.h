// Rows of a `uniform` weight by index: y[token] = W[indices[token]].
//
// A row is scattered over its tile, 16 bytes of every plane; only those are read.
#pragma once

#include "arguments.h"
#include "kernels/codes.h"
#include "kernels/conversion.h"
#include "kernels/parallel.h"
#include "kernels/tiles.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <int kBits>
class Embedding {
  using Layout = Block<kBits>;

 public:
  explicit Embedding(const EmbeddingArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        group_size_(weight_.group_size < 0 ? weight_.in_features : weight_.group_size),
        groups_((weight_.in_features + group_size_ - 1) / group_size_) {}

  void run() {
    parallel(arguments_.threads, [this](const Team& team) {
      const auto [begin, end] = team.share(arguments_.tokens);
      for (int64_t token = begin; token < end; ++token) copy_row(token);
    });
  }

 private:
  void copy_row(int64_t token) const {
    const int64_t tile = arguments_.indices[token] / kTileRows, row = arguments_.indices[token] % kTileRows;
    const uint8_t* codes = tile_codes<kBits>(weight_, tile);
    for (int64_t first = 0; first < weight_.in_features; first += kBlockInputs, codes += Layout::kBytes) {
      const int64_t inputs = smaller<int64_t>(kBlockInputs, weight_.in_features - first);
      float values[kBlockInputs];
      decode(codes, static_cast<int>(row), values);
      // The group changes at multiples of kGroupGranularity inputs.
      for (int64_t part = 0; part < inputs; part += kGroupGranularity) {
        const int64_t place = (tile * groups_ + (first + part) / group_size_) * kTileRows + row;
        float scale, zero = 1 << (kBits - 1);
        load_floats(weight_.scale, weight_.scale_dtype, place, 1, &scale);
        if (weight_.zero != nullptr) load_floats(weight_.zero, weight_.scale_dtype, place, 1, &zero);
        for (int i = 0; i < kGroupGranularity; ++i) values[part + i] = (values[part + i] - zero) * scale;
      }
      store_floats(values, arguments_.y_dtype, token * weight_.in_features + first, inputs, arguments_.y);
    }
  }

  // The codes of one row of a block, as floats in the order of the inputs.
  static void decode(const uint8_t* block, int row, float* values) {
    constexpr int kFieldMask = (1 << Layout::kFieldBits) - 1;
    for (int plane = 0; plane < Layout::kPlanes; ++plane) {
      uint16_t words[kStepInputs];
      std::memcpy(words, units(block, plane, row), kUnitBytes);
      for (int step = 0; step < Layout::kStepsPerPlane; ++step) {
        float* target = values + (plane * Layout::kStepsPerPlane + step) * kStepInputs;
        for (int i = 0; i < kStepInputs; ++i) {
          target[i] = static_cast<float>(words[i] >> Layout::kFieldBits * step & kFieldMask);
        }
      }
    }
    if constexpr (kBits == 3) {
      const uint8_t* high = high_bits(block, row);
      for (int step = 0; step < kStepsPerBlock; ++step) {
        for (int i = 0; i < kStepInputs; ++i) {
          values[step * kStepInputs + i] += static_cast<float>((high[i] >> step & 1) << 2);
        }
      }
    }
  }

  const EmbeddingArguments& arguments_;
  const Weight& weight_;
  int64_t group_size_;
  int64_t groups_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
