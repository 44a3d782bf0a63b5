#include "bindings/trellis.h"

#include "bindings/cpu_arguments.h"

namespace requant::cpu {
namespace {

Weight trellis_weight(Address codes, Address scale, int scale_dtype, Address input_signs, Address output_signs,
                      Address codebook, Address sparse_index, int sparse_dtype, int64_t out_features,
                      int64_t in_features, int bits, int code) {
  Weight weight =
      make_weight(codes, scale, scale_dtype, sparse_index, sparse_dtype, out_features, in_features, bits, -1);
  weight.trellis = {at<const int8_t>(input_signs), at<const int8_t>(output_signs), at<const float>(codebook),
                    static_cast<TrellisCode>(code)};
  return weight;
}

void linear(int isa, const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype,
            Address y, int threads) {
  const InstructionSet& set = instruction_set(isa);
  const LinearArguments arguments =
      make_linear_arguments(set, weight, x, x_dtype, tokens, bias, bias_dtype, y, threads);
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
