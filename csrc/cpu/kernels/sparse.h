// The sparse part of one tile (picture: common/sparse_index.h).
#pragma once

#include <type_traits>

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/sparse_inputs.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kPrefetchEntries = 512;  // how far ahead of the entry in use: about two tiles
// Unpacked before the first of them is used: what a processor has just stored as a register it is slow to load in
// parts.
constexpr int kLayersTogether = 16;

inline float entry_value(uint32_t entry, Dtype dtype) {
  const uint16_t value = static_cast<uint16_t>(entry >> kEntryValueShift);
  return dtype == Dtype::kBFloat16 ? bf16_to_float(value) : Isa::half_to_float(value);
}

// The words of one (tile, span).
class SparseSpan {
 public:
  SparseSpan(const Weight& weight, int64_t tile, int64_t span) {
    const int64_t place = tile * span_count(weight.in_features) + span;
    lanes_ = weight.sparse.words + weight.sparse.offsets[place];
    empty_ = weight.sparse.offsets[place] == weight.sparse.offsets[place + 1];
  }

  bool empty() const { return empty_; }
  int row(int lane) const { return static_cast<int>(lanes_[lane] & kLaneRowMask); }
  int64_t count(int lane) const { return lanes_[lane] >> kLaneRowBits; }
  int64_t layers() const { return empty_ ? 0 : count(kFullLanes - 1); }
  const uint32_t* lanes() const { return lanes_; }
  const uint32_t* entries() const { return lanes_ + kTileRows; }

 private:
  const uint32_t* lanes_;
  bool empty_;
};

// use(input, row, value) for every entry of a tile.
template <class Use>
REQUANT_INLINE inline void for_each_entry(const Weight& weight, int64_t tile, Use use) {
  for (int64_t span = 0; span < span_count(weight.in_features); ++span) {
    const SparseSpan entries(weight, tile, span);
    if (entries.empty()) continue;
    const uint32_t* next = entries.entries();
    const auto use_next = [&](int row) REQUANT_INLINE {
      const uint32_t entry = *next++;
      use(span * kSpanInputs + (entry & kEntryInputMask), row, entry_value(entry, weight.sparse_value_dtype));
    };
    const int64_t layers = entries.layers();
    int lanes = kTileRows;
    for (int64_t layer = 0; layer < layers; ++layer) {
      while (entries.count(lanes - 1) <= layer) --lanes;
      for (int lane = 0; lane < lanes; ++lane) use_next(entries.row(lane));
    }
    for (int lane = 0; lane < kFullLanes; ++lane) {
      for (int64_t entry = layers; entry < entries.count(lane); ++entry) use_next(entries.row(lane));
    }
  }
}

// Up to 16 entries, taken apart for tokens that stand side by side: `stride` inputs of type Input for each input, or
// pair of inputs, of the weight.
template <class Input>
struct UnpackedEntries {
  static constexpr bool kPairs = std::is_same_v<Input, uint32_t>;

  void unpack(const uint32_t* entries, int count, bool bf16, int stride) {
    Isa::unpack_entries(entries, count, bf16, values, places);
    for (int lane = 0; lane < kTileRows; ++lane) {
      const int32_t input = places[lane];
      if constexpr (kPairs) shifts[lane] = (~input & 1) * 16;
      places[lane] = (kPairs ? input >> 1 : input) * stride;
    }
  }

  // Lanes from the end on have the value 0 and the input before the first, a row of zeros: no infinite x becomes a NaN
  // where no weight is.
  alignas(64) float values[kTileRows];
  alignas(64) int32_t places[kTileRows];
  alignas(64) uint32_t shifts[kPairs ? kTileRows : 1];  // that bring an input to the upper half of its pair
};

// The sparse sums of a tile for kColumns tokens, a few layers at a time, so that the dense loop can have them done
// while it waits for memory. One token gathers the x of all lanes; of more tokens, an entry is one load of all tokens'
// x and one multiply-add, and every lane has a register of sums.
//
// Input: float; for one token in bf16, uint16_t, its x being the very row that the dense part reads; for more,
// uint32_t, a pair of inputs each, as the dense part has them. Another copy would not stay in the first-level cache
// beside the codes that pass through it, and then gathers wait behind memory.
template <int kColumns, class Input = float>
class SparseSums {
  using Sums [[gnu::vector_size(kColumns * sizeof(float))]] = float;
  using Pairs [[gnu::vector_size(kColumns * sizeof(uint32_t))]] = uint32_t;
  static_assert(sizeof(Sums) == kColumns * sizeof(float));  // GCC ignores the attribute in other places

 public:
  // x: see UnpackedEntries; of one token, an even number of inputs.
  SparseSums(const Weight& weight, int64_t tile, const Input* x, int stride = 1)
      : weight_(weight), tile_(tile), x_(x), stride_(stride) {
    if (weight.sparse.words != nullptr) open(0);
  }

  int64_t layers() const { return layers_; }  // of the first span

  void add_layers(int64_t count) {
    const int64_t end = smaller(layer_ + count, layers_);
    if (layer_ == end) return;
    Sums sums[kTileRows];  // in registers, if there are enough
    std::memcpy(sums, sums_, sizeof sums);
    while (layer_ < end) {
      const int layers = static_cast<int>(smaller<int64_t>(end - layer_, kLayersTogether));
      int lanes[kLayersTogether];
      for (int i = 0; i < layers; ++i, ++layer_) {
        while (lanes_[present_ - 1] >> kLaneRowBits <= layer_) --present_;
        lanes[i] = present_;
      }
      add_entries(lanes, layers, sums);
    }
    std::memcpy(sums_, sums, sizeof sums);
  }

  // Adds all sums to y [row][kColumns].
  void finish(float* y) {
    if (weight_.sparse.words == nullptr) return;
    for (int64_t span = 0;;) {
      add_layers(layers_);
      if (lanes_ != nullptr) close(y);
      if (++span == span_count(weight_.in_features)) break;
      open(span);
    }
  }

 private:
  void open(int64_t span) {
    const SparseSpan entries(weight_, tile_, span);
    layer_ = 0;
    present_ = kTileRows;
    layers_ = entries.layers();
    lanes_ = entries.empty() ? nullptr : entries.lanes();
    next_ = entries.entries();
    x_span_ = x_ + span * (kSpanInputs / (UnpackedEntries<Input>::kPairs ? 2 : 1)) * stride_;
    for (Sums& sum : sums_) sum = Sums{};
  }

  void close(float* y) {
    int64_t tails[kFullLanes - 1], entries = 0;
    for (int lane = 0; lane < kFullLanes - 1; ++lane) {
      tails[lane] = (lanes_[lane] >> kLaneRowBits) - layers_;
      entries += tails[lane];
    }
    // Most tails are short: those of all lanes are one load.
    for (int lane = 0; entries > 0; entries -= kTileRows) {
      const int count = static_cast<int>(smaller<int64_t>(entries, kTileRows));
      Sums sums[kTileRows] = {};
      add_entries(&count, 1, sums);
      for (int i = 0; i < count; ++i) {
        while (tails[lane] == 0) ++lane;
        --tails[lane];
        sums_[lane] += sums[i];
      }
    }
    for (int lane = 0; lane < kTileRows; ++lane) {
      float* row = y + (lanes_[lane] & kLaneRowMask) * kColumns;
      Sums total;
      std::memcpy(&total, row, sizeof total);
      total += sums_[lane];
      std::memcpy(row, &total, sizeof total);
    }
  }

  // The next lanes[0] entries, one for each lane from the first on, then the next lanes[1], and so on.
  REQUANT_INLINE void add_entries(const int* lanes, int layers, Sums (&sums)[kTileRows]) {
    const bool bf16 = weight_.sparse_value_dtype == Dtype::kBFloat16;
    if constexpr (kColumns == 1) {
      for (int layer = 0; layer < layers; ++layer) {
        Isa::prefetch(next_ + kPrefetchEntries);
        Isa::add_products(next_, lanes[layer], bf16, x_span_, reinterpret_cast<float*>(sums));
        next_ += lanes[layer];
      }
    } else {
      UnpackedEntries<Input> unpacked[kLayersTogether];
      for (int layer = 0; layer < layers; ++layer) {
        Isa::prefetch(next_ + kPrefetchEntries);
        unpacked[layer].unpack(next_, lanes[layer], bf16, stride_);
        next_ += lanes[layer];
      }
      for (int layer = 0; layer < layers; ++layer) add_layer(unpacked[layer], sums);
    }
  }

  REQUANT_INLINE void add_layer(const UnpackedEntries<Input>& entries, Sums (&sums)[kTileRows]) const {
#pragma GCC unroll 16
    for (int lane = 0; lane < kTileRows; ++lane) {
      Sums x;
      std::memcpy(&x, x_span_ + entries.places[lane], sizeof x);
      if constexpr (UnpackedEntries<Input>::kPairs) {
        x = reinterpret_cast<Sums>(reinterpret_cast<Pairs>(x) << entries.shifts[lane] & 0xffff0000);
      }
      sums[lane] += entries.values[lane] * x;
    }
  }

  const Weight& weight_;
  int64_t tile_;
  const Input* x_;
  int stride_;
  const Input* x_span_ = nullptr;
  const uint32_t* lanes_ = nullptr;  // null: no entries
  const uint32_t* next_ = nullptr;
  int64_t layer_ = 0;
  int present_ = 0;  // lanes that have an entry in the layer before
  int64_t layers_ = 0;
  Sums sums_[kTileRows];
};

// Adds the sparse sums of a tile for up to kMostColumns tokens, which stand side by side in x as in UnpackedEntries, to
// y [token][y_stride]. Up to kMostColumns elements from the place of the last input on are read.
template <class Input>
void add_sparse_sums(const Weight& weight, int64_t tile, const Input* x, int stride, int64_t tokens, float* y,
                     int64_t y_stride) {
  if (weight.sparse.words == nullptr) return;
  const auto add = [&](auto columns) {
    alignas(64) float sums[kTileRows * columns.value] = {};
    SparseSums<columns.value, Input>(weight, tile, x, stride).finish(sums);
    for (int64_t token = 0; token < tokens; ++token) {
      for (int row = 0; row < kTileRows; ++row) y[token * y_stride + row] += sums[row * columns.value + token];
    }
  };
  if (tokens <= 4) return add(Index<4>{});
  if constexpr (kMostColumns > 8) {
    if (tokens <= 8) return add(Index<8>{});
  }
  if constexpr (kMostColumns > 4) add(Index<kMostColumns>{});
}

// The same for all tokens of a call.
inline void add_sparse_sums(const Weight& weight, int64_t tile, const SparseInputs& inputs, float* y,
                            int64_t y_stride) {
  for (int64_t block = 0; block < inputs.blocks(); ++block) {
    float* place = y + block * inputs.columns() * y_stride;
    add_sparse_sums(weight, tile, inputs.block(block), inputs.columns(), inputs.tokens(block), place, y_stride);
  }
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
