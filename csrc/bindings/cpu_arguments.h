// What the functions of the module _cpu make of their arguments.
#pragma once

#include <stdexcept>
#include <string>

#include "bindings/address.h"
#include "cpu/arguments.h"
#include "cpu/dispatch.h"
#include "cpu/sparse_index.h"

namespace requant::cpu {

inline const InstructionSet& instruction_set(int index) { return instruction_sets().at(static_cast<size_t>(index)); }

// Of any format; what only some have is absent.
inline Weight make_weight(Address codes, Address scale, int scale_dtype, Address sparse_index, int sparse_dtype,
                          int64_t out_features, int64_t in_features, int bits, int64_t group_size) {
  Weight weight{};
  weight.out_features = out_features;
  weight.in_features = in_features;
  weight.bits = bits;
  weight.group_size = group_size;
  weight.codes = at<const uint8_t>(codes);
  weight.scale = at<const void>(scale);
  weight.scale_dtype = static_cast<Dtype>(scale_dtype);
  weight.sparse = view_sparse_index(at<const void>(sparse_index), out_features, in_features);
  weight.sparse_value_dtype = static_cast<Dtype>(sparse_dtype);
  return weight;
}

// y has the dtype of x.
inline LinearArguments make_linear_arguments(const InstructionSet& set, const Weight& weight, Address x, int x_dtype,
                                             int64_t tokens, Address bias, int bias_dtype, Address y, int threads) {
  if (tokens < 1) throw std::invalid_argument("tokens must be at least 1, got " + std::to_string(tokens));
  const Dtype dtype = static_cast<Dtype>(x_dtype);
  return {weight,
          at<const void>(x),
          dtype,
          tokens,
          at<const void>(bias),
          static_cast<Dtype>(bias_dtype),
          at<void>(y),
          dtype,
          threads,
          set.use_matrix_tiles};
}

}  // namespace requant::cpu
