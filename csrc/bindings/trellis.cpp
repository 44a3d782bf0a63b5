#include "bindings/trellis.h"

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

LinearArguments arguments_of(const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype,
                             Address y, int threads) {
  return {weight,
          at<const void>(x),
          static_cast<Dtype>(x_dtype),
          tokens,
          at<const void>(bias),
          static_cast<Dtype>(bias_dtype),
          at<void>(y),
          threads,
          false};
}

void linear(int isa, const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype,
            Address y, int threads) {
  const pybind11::gil_scoped_release released;
  instruction_set(isa).trellis->linear(arguments_of(weight, x, x_dtype, tokens, bias, bias_dtype, y, threads));
}

void rotate_inputs(int isa, const Weight& weight, Address x, int x_dtype, int64_t tokens, Address rotated,
                   int threads) {
  const pybind11::gil_scoped_release released;
  instruction_set(isa).trellis->rotate_inputs(arguments_of(weight, x, x_dtype, tokens, 0, 0, 0, threads),
                                              at<float>(rotated));
}

void finish_outputs(int isa, const Weight& weight, Address z, Address x, int x_dtype, int64_t tokens, Address bias,
                    int bias_dtype, Address y, int threads) {
  const pybind11::gil_scoped_release released;
  instruction_set(isa).trellis->finish_outputs(arguments_of(weight, x, x_dtype, tokens, bias, bias_dtype, y, threads),
                                               at<float>(z));
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
  module.def("trellis_rotate_inputs", &rotate_inputs);
  module.def("trellis_finish_outputs", &finish_outputs);
  module.def("trellis_decode_rotated", &decode_rotated);
  module.def("viterbi", &viterbi);
}

}  // namespace requant::cpu
