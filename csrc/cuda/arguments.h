// What the launchers of the CUDA kernels are given, and what they promise. Plain C++: nothing here needs nvcc.
//
// Every pointer is a device address. The caller owns all memory, including the workspace, and names the stream; a
// launcher allocates nothing, waits for nothing and changes no setting, so it may run while a CUDA graph is captured.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "common/trellis.h"

namespace requant::cuda {

enum class Format : int { kUniform = 0, kLut = 1, kTrellis = 2 };

constexpr int kSliceInputs = 256;

// The sparse part by tiles of 16 rows and slices of 256 inputs (csrc/cuda/sparse.cuh has the picture).
struct SparseIndex {
  const uint32_t* offsets;  // null: no sparse part
  const uint32_t* entries;
  Dtype value_dtype;  // fp16 or bf16
};

// W = D + S. Tensors in the layouts of requant_kernels/formats; codes and tables begin at multiples of 16 bytes.
struct Weight {
  Format format;
  int64_t out_features;
  int64_t in_features;
  int bits;
  int64_t group_size;  // a multiple of 32, or -1: one group per row
  const uint32_t* codes;
  const void* scale;  // lut: null for tables per row
  const void* zero;   // uniform: null for the middle code
  Dtype scale_dtype;  // of scale and zero
  const void* table;
  Dtype table_dtype;
  bool shared_table;
  Trellis trellis;
  SparseIndex sparse;
};

// Where and how to launch.
struct Device {
  void* stream;         // cudaStream_t
  int multiprocessors;  // how many the device has: decides how far one layer is split
  int capability;       // 10 * major + minor of its compute capability
};

// y = x @ W.T + bias, at most kMaxTokens tokens.
struct LinearArguments {
  Weight weight;
  const void* x;  // [tokens, in_features]
  Dtype x_dtype;  // fp16 or bf16; y has the same
  int64_t tokens;
  const void* bias;  // [out_features] or null
  Dtype bias_dtype;
  void* y;          // [tokens, out_features]
  void* workspace;  // workspace_bytes(...) bytes at a multiple of 16; need not be cleared
};

constexpr int64_t kMaxTokens = 64;

// How many bytes of workspace `linear` wants for these arguments; may be 0.
size_t workspace_bytes(const Weight& weight, int64_t tokens, const Device& device);

// Throws std::runtime_error with CUDA's own words if a launch fails, std::invalid_argument for what it cannot do.
void linear(const LinearArguments& arguments, const Device& device);

// Rows row_begin ..< row_end of W = D + S into w [row_end - row_begin, in_features]; row_begin a multiple of 16.
// Trellis: rows of diag(scale) C, of padded rows, too, without the sparse part, [row_end - row_begin, in_features
// padded to 16]; row_end is a multiple of 16. Without a scale: rows of C times trellis_unit (trellis.h).
struct DequantizeArguments {
  Weight weight;
  int64_t row_begin;
  int64_t row_end;
  void* w;
  Dtype w_dtype;
};

void dequantize(const DequantizeArguments& arguments, const Device& device);

}  // namespace requant::cuda
