// What a kernel call is told. Plain data, filled in by the bindings; every pointer is borrowed for the call.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/sparse_index.h"
#include "common/trellis.h"

namespace requant::cpu {

// W = D + S, [out_features, in_features]. D is `uniform` if table is null, else `lut`.
struct Weight {
  int64_t out_features;
  int64_t in_features;
  int bits;
  int64_t group_size;    // -1: one group per row
  const uint8_t* codes;  // tile16
  const void* scale;     // may be null for lut
  const void* zero;      // null: the middle code
  Dtype scale_dtype;     // of scale and zero
  const void* table;     // [table_rows, 2^bits]; null for uniform
  Dtype table_dtype;
  bool shared_table;         // table_rows is 1
  SparseIndex sparse;        // words null: no sparse part
  Dtype sparse_value_dtype;  // fp16 or bf16
  Trellis trellis;
};

constexpr int kMaxTokens = 32;  // of the decode and batch kernels: what these keep on their stack

// y[tokens, out_features] = x[tokens, in_features] @ W.T + bias
struct LinearArguments {
  Weight weight;
  const void* x;
  Dtype x_dtype;
  int64_t tokens;    // at least 1
  const void* bias;  // may be null
  Dtype bias_dtype;
  void* y;
  Dtype y_dtype;
  int threads;
  bool use_matrix_tiles;  // for batches of bf16 inputs
};

// w[row_end - row_begin, in_features] = rows row_begin ..< row_end of W; row_begin is a multiple of 16.
struct DequantizeArguments {
  Weight weight;
  int64_t row_begin;
  int64_t row_end;
  void* w;
  Dtype w_dtype;  // not fp16 if there is a sparse part
  int threads;
};

// How decoded weights are ordered (kernels/panel.h, kernels/matrix_panel.h).
enum class PanelKind { kFloat32, kBFloat16, kMatrix };

// panels[tile_end - tile_begin][16 * in_padded] = tiles tile_begin ..< tile_end of W, in_padded being in_features
// rounded up to a multiple of 32.
struct PanelArguments {
  const Weight& weight;
  int64_t tile_begin;
  int64_t tile_end;
  PanelKind kind;
  void* panels;
};
using DecodePanels = void (*)(const PanelArguments&);

// y[tokens, in_features] = the rows of W with these indices; W has no sparse part.
struct EmbeddingArguments {
  Weight weight;
  const int64_t* indices;  // each in 0 ..< out_features
  int64_t tokens;
  void* y;
  Dtype y_dtype;
  int threads;
};

// The entry points of a format family, compiled once per instruction set.
struct Kernels {
  void (*linear)(const LinearArguments&);  // 1 .. kMaxTokens tokens
  void (*dequantize)(const DequantizeArguments&);
  DecodePanels decode_panels;
  void (*embedding)(const EmbeddingArguments&) = nullptr;  // of uniform
};

// The kernel for many tokens of any format, compiled once per instruction set.
struct Prefill {
  void (*run)(const LinearArguments&, DecodePanels);
};

// The kernel of `uniform` and `lut` that rounds inputs to 8 bits, for any number of tokens, compiled once per
// instruction set.
struct Int8Activations {
  bool (*gains)(const LinearArguments&, bool prefill);  // whether it is faster than the kernels that do not round
  void (*linear)(const LinearArguments&);
};

// Those of format `trellis`.
struct TrellisKernels {
  void (*linear)(const LinearArguments&);  // any number of tokens
  // Rows row_begin ..< row_end (up to out_padded) of W in its rotated basis, without S: [rows, in_padded].
  void (*decode_rotated)(const DequantizeArguments&);
};

}  // namespace requant::cpu
