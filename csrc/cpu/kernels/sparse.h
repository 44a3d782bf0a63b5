// The sparse part of one tile (picture: common/sparse_index.h).
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
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

// The sparse sums of a tile for one token, a few layers at a time, so that the dense loop can have them done while it
// waits for memory.
class SparseSums {
 public:
  // x: fp32 inputs in order.
  SparseSums(const Weight& weight, int64_t tile, const float* x) : weight_(weight), tile_(tile), x_(x) {
    if (weight.sparse.words != nullptr) open(0);
  }

  int64_t layers() const { return layers_; }  // of the first span

  void add_layers(int64_t count) {
    const int64_t end = smaller(layer_ + count, layers_);
    if (layer_ == end) return;
    Isa::prefetch(next_ + kPrefetchEntries);
    next_ = Isa::add_layers(lanes_, layer_, end, next_, value_dtype_is_bf16(), x_span_, sums_);
    layer_ = end;
  }

  // Adds all sums to y [row].
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
  bool value_dtype_is_bf16() const { return weight_.sparse_value_dtype == Dtype::kBFloat16; }

  void open(int64_t span) {
    const SparseSpan entries(weight_, tile_, span);
    layer_ = 0;
    layers_ = entries.layers();
    lanes_ = entries.empty() ? nullptr : entries.lanes();
    next_ = entries.entries();
    x_span_ = x_ + span * kSpanInputs;
    for (float& sum : sums_) sum = 0;
  }

  void close(float* y) {
    for (int lane = 0; lane < kFullLanes - 1; ++lane) {
      const int64_t tail = (lanes_[lane] >> kLaneRowBits) - layers_;
      if (tail > 0) sums_[lane] += Isa::dot_entries(next_, tail, value_dtype_is_bf16(), x_span_);
      next_ += tail;
    }
    for (int lane = 0; lane < kTileRows; ++lane) y[lanes_[lane] & kLaneRowMask] += sums_[lane];
  }

  const Weight& weight_;
  int64_t tile_;
  const float* x_;
  const float* x_span_ = nullptr;
  const uint32_t* lanes_ = nullptr;  // null: no entries
  const uint32_t* next_ = nullptr;
  int64_t layer_ = 0;
  int64_t layers_ = 0;
  alignas(64) float sums_[kTileRows];
};

// sums[row][token] += value * x[input][token] for every entry of a tile. Tokens come in columns of a multiple of eight.
template <int kTokens>
void add_sparse(const Weight& weight, int64_t tile, const float* x, float* sums) {
  constexpr int kFloats = sizeof(Isa::Floats) / sizeof(float);
  constexpr int kStep = kTokens % kFloats == 0 ? kFloats : 1;
  for_each_entry(weight, tile, [&](int64_t input, int row, float value) REQUANT_INLINE {
    const float* inputs = x + input * kTokens;
    float* sum = sums + row * kTokens;
    if constexpr (kStep == kFloats) {
      const Isa::Floats values = Isa::splat(value);
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; token += kFloats) {
        Isa::store(sum + token, Isa::multiply_add(values, Isa::load(inputs + token), Isa::load(sum + token)));
      }
    } else {
      for (int token = 0; token < kTokens; ++token) sum[token] += value * inputs[token];
    }
  });
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
