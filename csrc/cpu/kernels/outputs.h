// The end of every kernel: the bias, and the dtype of y.
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// Adds the bias to the outputs y [row] of one tile and token, and stores those of rows that exist. Changes y.
inline void write_outputs(const LinearArguments& arguments, int64_t tile, int64_t token, float* y) {
  const int64_t out_features = arguments.weight.out_features, first = tile * kTileRows;
  const int64_t rows = smaller<int64_t>(kTileRows, out_features - first);
  if (arguments.bias != nullptr) {
    float bias[kTileRows] = {};
    load_floats(arguments.bias, arguments.bias_dtype, first, rows, bias);
    for (int row = 0; row < kTileRows; ++row) y[row] += bias[row];
  }
  store_floats(y, arguments.y_dtype, token * out_features + first, rows, arguments.y);
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
