// Python module requant_kernels._cuda, and its twin for tests, in which a simulator stands for the device: compiled
// once more with REQUANT_SIMULATED. Tensors arrive as addresses (0: absent) and numbers; Python has checked them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "bindings/address.h"
#include "common/tile16.h"
#include "cuda/arguments.h"
#include "cuda/trellis.h"

#ifdef REQUANT_SIMULATED
#include "device_bindings.h"
#endif

namespace py = pybind11;

namespace requant::cuda {
namespace {

SparseIndex sparse_index_at(Address index, int value_dtype, int64_t out_features, int64_t in_features) {
  const uint32_t* offsets = at<const uint32_t>(index);
  if (offsets == nullptr) return {nullptr, nullptr, Dtype::kFloat16};
  const int64_t tiles = (out_features + kTileRows - 1) / kTileRows;
  const int64_t slices = (in_features + kSliceInputs - 1) / kSliceInputs;
  return {offsets, offsets + tiles * slices + 1, static_cast<Dtype>(value_dtype)};
}

Weight uniform_weight(Address codes, Address scale, Address zero, int scale_dtype, Address sparse_index,
                      int sparse_dtype, int64_t out_features, int64_t in_features, int bits, int64_t group_size) {
  Weight weight{};
  weight.format = Format::kUniform;
  weight.out_features = out_features;
  weight.in_features = in_features;
  weight.bits = bits;
  weight.group_size = group_size;
  weight.codes = at<const uint32_t>(codes);
  weight.scale = at<const void>(scale);
  weight.zero = at<const void>(zero);
  weight.scale_dtype = static_cast<Dtype>(scale_dtype);
  weight.sparse = sparse_index_at(sparse_index, sparse_dtype, out_features, in_features);
  return weight;
}

Weight lut_weight(Address codes, Address table, Address scale, int table_dtype, int scale_dtype, bool shared_table,
                  Address sparse_index, int sparse_dtype, int64_t out_features, int64_t in_features, int bits,
                  int64_t group_size) {
  Weight weight = uniform_weight(codes, scale, 0, scale_dtype, sparse_index, sparse_dtype, out_features, in_features,
                                 bits, group_size);
  weight.format = Format::kLut;
  weight.table = at<const void>(table);
  weight.table_dtype = static_cast<Dtype>(table_dtype);
  weight.shared_table = shared_table;
  return weight;
}

Weight trellis_weight(Address codes, Address scale, int scale_dtype, Address input_signs, Address output_signs,
                      Address codebook, Address sparse_index, int sparse_dtype, int64_t out_features,
                      int64_t in_features, int bits, int code) {
  Weight weight =
      uniform_weight(codes, scale, 0, scale_dtype, sparse_index, sparse_dtype, out_features, in_features, bits, -1);
  weight.format = Format::kTrellis;
  weight.trellis = {at<const int8_t>(input_signs), at<const int8_t>(output_signs), at<const float>(codebook),
                    static_cast<TrellisCode>(code)};
  return weight;
}

Device device_of(Address stream, int multiprocessors, int capability) {
  return {at<void>(stream), multiprocessors, capability};
}

void run_linear(const Weight& weight, Address x, int x_dtype, int64_t tokens, Address bias, int bias_dtype, Address y,
                Address workspace, Address stream, int multiprocessors, int capability) {
  if (tokens < 1 || tokens > kMaxTokens) {
    throw std::invalid_argument("tokens must lie in 1.." + std::to_string(kMaxTokens) + ", got " +
                                std::to_string(tokens));
  }
  const py::gil_scoped_release released;
  linear({weight, at<const void>(x), static_cast<Dtype>(x_dtype), tokens, at<const void>(bias),
          static_cast<Dtype>(bias_dtype), at<void>(y), at<void>(workspace)},
         device_of(stream, multiprocessors, capability));
}

void run_dequantize(const Weight& weight, int64_t row_begin, int64_t row_end, Address w, int w_dtype, Address stream,
                    int multiprocessors, int capability) {
  const py::gil_scoped_release released;
  dequantize({weight, row_begin, row_end, at<void>(w), static_cast<Dtype>(w_dtype)},
             device_of(stream, multiprocessors, capability));
}

void run_trellis_rotate_inputs(const Weight& weight, Address x, int x_dtype, int64_t tokens, Address rotated,
                               Address token_factors, Address stream, int multiprocessors, int capability) {
  const py::gil_scoped_release released;
  rotate_inputs({weight, at<const void>(x), static_cast<Dtype>(x_dtype), tokens, TrellisOrder::kPlain,
                 at<void>(rotated), pad_to_trellis_tile(weight.in_features), at<float>(token_factors)},
                device_of(stream, multiprocessors, capability));
}

void run_trellis_sparse_products(const Weight& weight, Address x_transposed, int x_dtype, int64_t tokens,
                                 int64_t token_stride, Address sums, Address stream, int multiprocessors,
                                 int capability) {
  const py::gil_scoped_release released;
  trellis_sparse_products(
      {weight, at<const void>(x_transposed), static_cast<Dtype>(x_dtype), tokens, token_stride, at<float>(sums)},
      device_of(stream, multiprocessors, capability));
}

void run_trellis_finish_outputs(const Weight& weight, Address products, Address token_factors, Address sparse_sums,
                                int64_t tokens, Address bias, int bias_dtype, Address y, int y_dtype, Address stream,
                                int multiprocessors, int capability) {
  const py::gil_scoped_release released;
  finish_outputs({weight, at<const void>(products), 1, tokens, TrellisOrder::kPlain, at<const float>(token_factors),
                  at<const float>(sparse_sums), 1, at<const void>(bias), static_cast<Dtype>(bias_dtype), at<void>(y),
                  static_cast<Dtype>(y_dtype)},
                 device_of(stream, multiprocessors, capability));
}

}  // namespace
}  // namespace requant::cuda

PYBIND11_MODULE(REQUANT_MODULE, module) {
  using namespace requant::cuda;
  module.doc() = "CUDA kernels over raw device addresses; use requant_kernels.backends.cuda.";

  py::class_<Weight>(module, "Weight", py::module_local(), "W = D + S at borrowed addresses.");
  module.def("uniform_weight", &uniform_weight);
  module.def("lut_weight", &lut_weight);
  module.def("trellis_weight", &trellis_weight);
  module.def("workspace_bytes",
             [](const Weight& weight, int64_t tokens, requant::Address stream, int multiprocessors, int capability) {
               return workspace_bytes(weight, tokens, device_of(stream, multiprocessors, capability));
             });
  module.def("linear", &run_linear);
  module.def("dequantize", &run_dequantize);
  module.def("trellis_rotate_inputs", &run_trellis_rotate_inputs);
  module.def("trellis_sparse_products", &run_trellis_sparse_products);
  module.def("trellis_finish_outputs", &run_trellis_finish_outputs);
  module.attr("MAX_TOKENS") = kMaxTokens;
  module.def(
      "architectures", [] { return std::string(REQUANT_CUDA_ARCHITECTURES); },
      "Those that the kernels were compiled for, as in REQUANT_CUDA_ARCHS.");
#ifdef REQUANT_SIMULATED
  gpusim::define_device(module);
#endif
}
