// The two bases of format `trellis`, W = diag(output_signs) H diag(scale) C H diag(input_signs) + S:
//
//   x [in_features]  -> rotated, H (input_signs x) [in_padded]
//   z = C rotated [out_padded]  -> y = output_signs H (scale z) + S x + bias [out_features]
#pragma once

#include "arguments.h"
#include "common/trellis.h"
#include "kernels/conversion.h"
#include "kernels/hadamard.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int64_t pad_to_tile(int64_t size) { return (size + kTrellisTile - 1) / kTrellisTile * kTrellisTile; }

class Rotation {
 public:
  explicit Rotation(const LinearArguments& arguments)
      : in_padded(pad_to_tile(arguments.weight.in_features)),
        out_padded(pad_to_tile(arguments.weight.out_features)),
        arguments_(arguments),
        weight_(arguments.weight),
        input_(in_padded),
        output_(out_padded),
        scale_(out_padded) {
    load_floats(weight_.scale, weight_.scale_dtype, 0, out_padded, scale_.data());
  }

  // How many values `scratch` must hold below.
  int64_t scratch_size() const { return in_padded > out_padded ? in_padded : out_padded; }

  void load(int64_t token, float* x) const {
    load_floats(arguments_.x, arguments_.x_dtype, token * weight_.in_features, weight_.in_features, x);
  }

  // x [in_features], with space for the padding, in place.
  void rotate(float* x, float* scratch) const {
    for (int64_t i = 0; i < weight_.in_features; ++i) x[i] *= weight_.trellis.input_signs[i];
    for (int64_t i = weight_.in_features; i < in_padded; ++i) x[i] = 0;
    input_.transform(x, scratch);
  }

  // z [out_padded], in which 1 stands for `unit`, -> y of `token`. sparse_sums [out_features] may be null; z is
  // overwritten.
  void finish(float* z, float unit, const float* sparse_sums, int64_t token, float* scratch) const {
    const int64_t out_features = weight_.out_features;
    const int8_t* signs = weight_.trellis.output_signs;
    for (int64_t i = 0; i < out_padded; ++i) z[i] *= scale_.data()[i] * unit;
    output_.transform(z, scratch);
    if (sparse_sums == nullptr) {
      for (int64_t i = 0; i < out_features; ++i) z[i] *= signs[i];
    } else {
      for (int64_t i = 0; i < out_features; ++i) z[i] = z[i] * signs[i] + sparse_sums[i];
    }
    if (arguments_.bias != nullptr) {
      load_floats(arguments_.bias, arguments_.bias_dtype, 0, out_features, scratch);
      for (int64_t i = 0; i < out_features; ++i) z[i] += scratch[i];
    }
    store_floats(z, arguments_.y_dtype, token * out_features, out_features, arguments_.y);
  }

  const int64_t in_padded, out_padded;

 private:
  const LinearArguments& arguments_;
  const Weight& weight_;
  Hadamard input_, output_;
  Buffer<float> scale_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
