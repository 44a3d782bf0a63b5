#include "bindings/trellis.h"

#include <stdexcept>
#include <string>

#include "bindings/address.h"
#include "cpu/dispatch.h"
#include "cpu/sparse_index.h"

namespace requant::cpu {
namespace {

const InstructionSet& instruction_set(int index) { return instruction_sets().at(static_cast<size_t>(index)); }

Weight trellis_weight(Address codes, Address scale, int scale_dtype, Address input_signs, Address output_signs,
                      Address codebook, Address sparse_index, int sparse_dtype, int64_t out_features,
                      int64_t in_features, int bits, int code) {
  Weight weight{};
  weight.out_features = out_features;
  weight.in_features = in_features;
  weight.bits = bits;
  weight.group_size = -1;
  weight.codes = at<const uint8_t>(codes);
  weight.scale = at<const void>(scale);
  weight.scale_dtype = static_cast<Dtype>(scale_dtype);
  weight.sparse = view_sparse_index(at<const void>(sparse_index), out_features, in_features);
  weight.sparse_value_dtype = static_cast<Dtype>(sparse_dtype);
  weight.trellis = {at<const int8_t>(input_signs), at<const int8_t>(output_signs), at<const float>(codebook),
                    static_cast<TrellisCode>(code)};
  return weight;
}

void linear(int isa, const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype,
            Address y, int threads) {
  if (tokens < 1) throw std::invalid_argument("tokens must be at least 1, got " + std::to_string(tokens));
  const InstructionSet& set = instruction_set(isa);
  const LinearArguments arguments{weight,
                                  at<const void>(x),
                                  static_cast<Dtype>(x_dtype),
                                  tokens,
                                  at<const void>(bias),
                                  static_cast<Dtype>(bias_dtype),
                                  at<void>(y),
                                  static_cast<Dtype>(x_dtype),
                                  threads,
                                  set.use_matrix_tiles};
  const pybind11::gil_scoped_release released;
  set.trellis->linear(arguments);
}

void decode_rotated(int isa, const Weight& weight, int64_t row_begin, int64_t row_end, Address w, int w_dtype,
                    int threads) {
  const pybind11::gil_scoped_release released;
  instruction_set(isa).trellis->decode_rotated(
      {weight, row_begin, row_end, at<void>(w), static_cast<Dtype>(w_dtype), threads});
}

void viterbi(int isa, Address targets, int64_t sequences, Address values, int step_bits, int values_per_step,
             Address states, int threads) {
  const pybind11::gil_scoped_release released;
  instruction_set(isa).viterbi({at<const float>(targets), sequences, at<const float>(values), step_bits,
                                values_per_step, at<uint16_t>(states), threads});
}

}  // namespace

void define_trellis(pybind11::module_& module) {
  module.def("trellis_weight", &trellis_weight);
  module.def("trellis_linear", &linear);
  module.def("trellis_decode_rotated", &decode_rotated);
  module.def("viterbi", &viterbi);
}

}  // namespace requant::cpu
