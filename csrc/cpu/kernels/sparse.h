// The sparse part of one tile (picture: common/sparse_index.h).
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/sparse_inputs.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kPrefetchEntries = 512;  // how far ahead of the entry in use: about two tiles

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

// Up to 16 entries, taken apart: lanes from the end on have the value 0 at input -1.
struct UnpackedEntries {
  alignas(64) float values[kTileRows];
  alignas(64) int32_t inputs[kTileRows];
};

// The sparse sums of a tile for kColumns tokens, a few layers at a time, so that the dense loop can have them done
// while it waits for memory. One token gathers the x of all lanes; of more tokens, an entry is one load of all tokens'
// x and one multiply-add, and every lane has a register of sums.
//
// Input: float, or uint16_t for one token in bf16, whose x is then the very row that the dense part reads. Another copy
// would not stay in the first-level cache beside the codes that pass through it, and then gathers wait behind memory.
template <int kColumns, class Input = float>
class SparseSums {
  using Sums [[gnu::vector_size(kColumns * sizeof(float))]] = float;
  static_assert(sizeof(Sums) == kColumns * sizeof(float));  // GCC ignores the attribute in other places

 public:
  // x: a block of SparseInputs, or an even number of bf16 inputs.
  SparseSums(const Weight& weight, int64_t tile, const Input* x) : weight_(weight), tile_(tile), x_(x) {
    if (weight.sparse.words != nullptr) open(0);
  }

  int64_t layers() const { return layers_; }  // of the first span

  void add_layers(int64_t count) {
    const int64_t end = smaller(layer_ + count, layers_);
    if (layer_ == end) return;
    Sums sums[kTileRows];  // in registers, if there are enough
    std::memcpy(sums, sums_, sizeof sums);
    for (; layer_ < end; ++layer_) {
      while (lanes_[present_ - 1] >> kLaneRowBits <= layer_) --present_;
      add_entries(present_, sums);
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
    x_span_ = x_ + span * kSpanInputs * kColumns;
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
      add_entries(count, sums);
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

  // The next `count` entries, one for each lane. The zero of the other lanes meets the row of zeros, so that no
  // infinite x becomes a NaN where no weight is.
  REQUANT_INLINE void add_entries(int count, Sums (&sums)[kTileRows]) {
    Isa::prefetch(next_ + kPrefetchEntries);
    const bool bf16 = weight_.sparse_value_dtype == Dtype::kBFloat16;
    if constexpr (kColumns == 1) {
      Isa::add_products(next_, count, bf16, x_span_, reinterpret_cast<float*>(sums));
    } else {
      UnpackedEntries entries;
      Isa::unpack_entries(next_, count, bf16, entries.values, entries.inputs);
      // Lanes are loaded one by one: to take them out of the registers just stored would cost three times as much.
      asm("" : "+m"(entries));
      unroll<0, kTileRows>([&](auto lane) REQUANT_INLINE {
        Sums x;
        std::memcpy(&x, x_span_ + static_cast<int64_t>(entries.inputs[lane.value]) * kColumns, sizeof x);
        sums[lane.value] += entries.values[lane.value] * x;
      });
    }
    next_ += count;
  }

  const Weight& weight_;
  int64_t tile_;
  const Input* x_;
  const Input* x_span_ = nullptr;
  const uint32_t* lanes_ = nullptr;  // null: no entries
  const uint32_t* next_ = nullptr;
  int64_t layer_ = 0;
  int present_ = 0;  // lanes that have an entry in the layer before
  int64_t layers_ = 0;
  Sums sums_[kTileRows];
};

// All sparse sums of one tile, for up to kMaxTokens tokens.
class TileSparseSums {
 public:
  TileSparseSums(const Weight& weight, int64_t tile, const SparseInputs& inputs)
      : columns_(inputs.columns()), empty_(inputs.blocks() == 0) {
    for (int64_t block = 0; block < inputs.blocks(); ++block) {
      float* sums = sums_ + block * columns_ * kTileRows;
      std::memset(sums, 0, kTileRows * columns_ * sizeof(float));
      const float* x = inputs.block(block);
      if (columns_ == 1) SparseSums<1>(weight, tile, x).finish(sums);
      if (columns_ == 4) SparseSums<4>(weight, tile, x).finish(sums);
      if constexpr (kMostColumns >= 8) {
        if (columns_ == 8) SparseSums<8>(weight, tile, x).finish(sums);
      }
      if constexpr (kMostColumns >= 16) {
        if (columns_ == 16) SparseSums<16>(weight, tile, x).finish(sums);
      }
    }
  }

  // Adds those of one token to y [row].
  void add_to(int64_t token, float* y) const {
    if (empty_) return;
    const float* sums = sums_ + token / columns_ * columns_ * kTileRows + token % columns_;
    for (int row = 0; row < kTileRows; ++row) y[row] += sums[row * columns_];
  }

 private:
  int columns_;
  bool empty_;
  alignas(64) float sums_[kMaxTokens * kTileRows];  // [block][row][column]
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
