// S x for many tokens, apart from the dense part. The tokens of a block stand side by side, so that one entry meets all
// of them in two registers of sums:
//
//   fp32   [block][input][2][kLanes]   lane t: token t, then token kLanes + t of the block
//   bf16   [block][input][kLanes]      lane t: bit 31              16 15       0
//                                              token kLanes + t      | token t
//
// The products of a block are used before those of the next one take their place: those of all tokens would go through
// memory. Of many blocks every thread has its own; else the threads share the tiles of each.
#pragma once

#include <type_traits>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/lanes.h"
#include "kernels/parallel.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Element: uint16_t for bf16 inputs, else float.
template <class Element>
class SparseBlocks {
  static constexpr int kLineRegisters = sizeof(Element) / 2;
  static constexpr int kManyBlocks = 4;     // for each thread: then it matters little that some have one more
  static constexpr int kListedLayers = 32;  // whose places are noted before their entries are used
  using Sums = FloatLanes[kTileRows][2];

 public:
  static constexpr int kBlockTokens = 2 * kLanes;

  explicit SparseBlocks(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        blocks_((arguments.tokens + kBlockTokens - 1) / kBlockTokens),
        present_blocks_(weight_.sparse.words == nullptr ? 0 : blocks_),
        apart_(blocks_ >= kManyBlocks * arguments.threads),
        tiles_(tile_count(weight_)),
        x_(present_blocks_ * weight_.in_features * kLineRegisters * kLanes),
        stride_((tiles_ + 1) * kTileRows),
        products_(present_blocks_ == 0 ? 0 : (apart_ ? arguments.threads : 1) * kBlockTokens * stride_) {}

  // Every thread of the team calls this; then they wait for each other, and each calls for_each_token().
  void load(const Team& team) const {
    const auto [begin, end] = team.share((weight_.in_features + kLanes - 1) / kLanes);
    for (int64_t block = 0; block < present_blocks_; ++block) {
      for (int64_t group = begin; group < end; ++group) load_group(block, group * kLanes);
    }
  }

  // use(token, its products [out_features], or null if nothing is sparse) for every token of the call, by one thread.
  template <class Use>
  void for_each_token(const Team& team, Use use) const {
    const Team workers = apart_ ? Team{0, 1} : team;
    const auto [first_block, end_block] = (apart_ ? team : Team{0, 1}).share(blocks_);
    float* products =
        present_blocks_ == 0 ? nullptr : products_.data() + (apart_ ? team.thread : 0) * kBlockTokens * stride_;
    for (int64_t block = first_block; block < end_block; ++block) {
      if (present_blocks_ > 0) multiply(workers, block, products);
      workers.wait_for_all();
      const int64_t first_token = block * kBlockTokens;
      const auto [begin, end] = workers.share(smaller<int64_t>(kBlockTokens, arguments_.tokens - first_token));
      for (int64_t i = begin; i < end; ++i) {
        use(first_token + i, present_blocks_ > 0 ? products + i * stride_ : nullptr);
      }
      workers.wait_for_all();
    }
  }

 private:
  void multiply(const Team& team, int64_t block, float* products) const {
    const auto [begin, end] = team.share(tiles_);
    for (int64_t tile = begin; tile < end; ++tile) {
      Sums sums;
      for (auto& row : sums) row[0] = row[1] = FloatLanes{};
      for (int64_t span = 0; span < span_count(weight_.in_features); ++span) {
        add_span(SparseSpan(weight_, tile, span), x_line(block, span * kSpanInputs), sums);
      }
      store(sums, products + tile * kTileRows);
    }
  }

  uint32_t* x_line(int64_t block, int64_t input) const {
    return x_.data() + (block * weight_.in_features + input) * kLineRegisters * kLanes;
  }

  // Lane by lane, so that its sums stay in registers. x: the line of the span's first input.
  void add_span(const SparseSpan& span, const uint32_t* x, Sums& sums) const {
    if (span.empty()) return;
    const uint32_t* next = span.entries();
    int lanes = kTileRows;  // with an entry in the layer
    for (int64_t first = 0; first < span.layers(); first += kListedLayers) {
      const int64_t layers = smaller<int64_t>(kListedLayers, span.layers() - first);
      const uint32_t* layer_entries[kListedLayers];
      const int present = lanes = lanes_with(span, lanes, first);
      for (int64_t i = 0; i < layers; ++i) {
        lanes = lanes_with(span, lanes, first + i);
        layer_entries[i] = next;
        next += lanes;
      }
      for (int lane = 0; lane < present; ++lane) {
        const int64_t count = smaller(layers, span.count(lane) - first);
        add_entries(count, [&](int64_t i) { return layer_entries[i][lane]; }, x, sums[span.row(lane)]);
      }
    }
    for (int lane = 0; lane < kFullLanes; ++lane) {
      const int64_t count = span.count(lane) - span.layers();
      add_entries(count, [&](int64_t i) { return next[i]; }, x, sums[span.row(lane)]);
      next += count;
    }
  }

  // At most `lanes`, and at least one has.
  static int lanes_with(const SparseSpan& span, int lanes, int64_t layer) {
    while (span.count(lanes - 1) <= layer) --lanes;
    return lanes;
  }

  template <class Entry>
  REQUANT_INLINE void add_entries(int64_t count, Entry entry_at, const uint32_t* x, FloatLanes (&sums)[2]) const {
    FloatLanes first = sums[0], second = sums[1];
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t entry = entry_at(i);
      const uint32_t* line = x + (entry & kEntryInputMask) * kLineRegisters * kLanes;
      const FloatLanes value = splat_lanes(entry_value(entry, weight_.sparse_value_dtype));
      const Lanes word = load_lanes(line);
      if constexpr (kLineRegisters == 1) {
        first = multiply_add(value, reinterpret_cast<FloatLanes>(word << 16), first);
        second = multiply_add(value, reinterpret_cast<FloatLanes>(word & 0xffff0000), second);
      } else {
        first = multiply_add(value, reinterpret_cast<FloatLanes>(word), first);
        second = multiply_add(value, reinterpret_cast<FloatLanes>(load_lanes(line + kLanes)), second);
      }
    }
    sums[0] = first;
    sums[1] = second;
  }

  // kLanes inputs of all tokens of a block.
  void load_group(int64_t block, int64_t first) const {
    const int64_t count = smaller<int64_t>(kLanes, weight_.in_features - first);
    for (int part = 0; part < kLineRegisters; ++part) {
      FloatLanes lines[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t token = block * kBlockTokens + part * kLanes + lane;
        Lanes x = load_bits(token, first, count);
        if constexpr (kLineRegisters == 1) x = x >> 16 | load_bits(token + kLanes, first, count);
        lines[lane] = reinterpret_cast<FloatLanes>(x);
      }
      transpose(lines);
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(x_line(block, first + i) + part * kLanes, &lines[i], sizeof lines[i]);
      }
    }
  }

  // Inputs as fp32; of a token that there is not, zeros.
  Lanes load_bits(int64_t token, int64_t first, int64_t count) const {
    // As long as GCC believes that `count` may be: fp16 is converted eight at a time.
    alignas(64) float x[16] = {};
    if (token < arguments_.tokens)
      load_floats(arguments_.x, arguments_.x_dtype, token * weight_.in_features + first, count, x);
    return load_lanes(x);
  }

  // products: of the tile's first row.
  void store(const Sums& sums, float* products) const {
    for (int part = 0; part < 2; ++part) {
      for (int row = 0; row < kTileRows; row += kLanes) {
        FloatLanes rows[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) rows[lane] = sums[row + lane][part];
        transpose(rows);
        for (int i = 0; i < kLanes; ++i) store_lanes(products + (part * kLanes + i) * stride_ + row, rows[i]);
      }
    }
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  int64_t blocks_, present_blocks_;
  bool apart_;
  int64_t tiles_;
  Buffer<uint32_t> x_;
  int64_t stride_;          // not a power of two, lest the tokens of a tile compete for the same places in the caches
  Buffer<float> products_;  // [thread, or one for all][token of a block][stride]
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
