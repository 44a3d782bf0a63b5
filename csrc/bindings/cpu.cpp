// Python module requant_kernels._cpu. Tensors arrive as addresses (0: absent) and numbers; Python has checked them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/cpu_arguments.h"
#include "bindings/trellis.h"

namespace py = pybind11;

namespace requant::cpu {
namespace {

// The arguments that describe a weight, in the order of the operators: `second` and `third` are scale and zero of
// `uniform`, table and scale of `lut`.
Weight uniform_weight(Address codes, Address scale, Address zero, int dtype, Address sparse_index, int sparse_dtype,
                      int64_t out_features, int64_t in_features, int bits, int64_t group_size) {
  Weight weight =
      make_weight(codes, scale, dtype, sparse_index, sparse_dtype, out_features, in_features, bits, group_size);
  weight.zero = at<const void>(zero);
  return weight;
}

Weight lut_weight(Address codes, Address table, Address scale, int table_dtype, int scale_dtype, bool shared_table,
                  Address sparse_index, int sparse_dtype, int64_t out_features, int64_t in_features, int bits,
                  int64_t group_size) {
  Weight weight =
      make_weight(codes, scale, scale_dtype, sparse_index, sparse_dtype, out_features, in_features, bits, group_size);
  weight.table = at<const void>(table);
  weight.table_dtype = static_cast<Dtype>(table_dtype);
  weight.shared_table = shared_table;
  return weight;
}

void linear(int isa, const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype,
            Address y, int threads, bool prefill, bool int8_activations) {
  const InstructionSet& set = instruction_set(isa);
  const Kernels& kernels = weight.table == nullptr ? *set.uniform : *set.lut;
  const LinearArguments arguments =
      make_linear_arguments(set, weight, x, x_dtype, tokens, bias, bias_dtype, y, threads);
  const py::gil_scoped_release released;
  if (int8_activations && set.int8_activations->gains(arguments, prefill)) {
    set.int8_activations->linear(arguments);
  } else if (prefill) {
    set.prefill->run(arguments, kernels.decode_panels);
  } else {
    if (tokens > kMaxTokens) {
      throw std::invalid_argument("tokens must lie in 1.." + std::to_string(kMaxTokens) + ", got " +
                                  std::to_string(tokens));
    }
    kernels.linear(arguments);
  }
}

void dequantize(int isa, const Weight& weight, int64_t row_begin, int64_t row_end, Address w, int w_dtype,
                int threads) {
  const InstructionSet& set = instruction_set(isa);
  const py::gil_scoped_release released;
  (weight.table == nullptr ? set.uniform : set.lut)
      ->dequantize({weight, row_begin, row_end, at<void>(w), static_cast<Dtype>(w_dtype), threads});
}

void embedding(int isa, const Weight& weight, Address indices, int64_t tokens, Address y, int y_dtype, int threads) {
  const InstructionSet& set = instruction_set(isa);
  const py::gil_scoped_release released;
  set.uniform->embedding(
      {weight, at<const int64_t>(indices), tokens, at<void>(y), static_cast<Dtype>(y_dtype), threads});
}

std::vector<std::string> instruction_set_names() {
  std::vector<std::string> names;
  for (const InstructionSet& set : instruction_sets()) names.push_back(set.name);
  return names;
}

}  // namespace
}  // namespace requant::cpu

PYBIND11_MODULE(_cpu, module) {
  using namespace requant;
  using namespace requant::cpu;
  module.doc() = "CPU kernels over raw addresses; use requant_kernels.backends.cpu.";

  py::class_<Weight>(module, "Weight", "W = D + S at borrowed addresses.");
  module.def("uniform_weight", &uniform_weight);
  module.def("lut_weight", &lut_weight);
  module.def("linear", &linear);
  module.def("dequantize", &dequantize);
  module.def("embedding", &embedding);
  define_trellis(module);
  module.def("instruction_sets", &instruction_set_names, "Names of those that run here, slowest first.");
  module.def("sparse_index_bytes", &sparse_index_bytes);
  module.def("build_sparse_index", [](Address row_offsets, Address columns, bool short_columns, Address values,
                                      int64_t out_features, int64_t in_features, int64_t entries, Address index) {
    const py::gil_scoped_release released;
    build_sparse_index(at<const int32_t>(row_offsets), at<const void>(columns), short_columns,
                       at<const uint16_t>(values), out_features, in_features, entries, at<void>(index));
  });
}
