// The linear kernels of format `lut`.
#include "cuda/formats/lut.cuh"
#include "cuda/launch.cuh"

namespace requant::cuda {
namespace {

template <int kBits, class Number>
Launch find_by_groups(const Weight& weight) {
  if (weight.scale == nullptr) return launch_linear<LutWeights<kBits, Number, Groups::kNone>>;
  return has_scales_by_spans(weight) ? launch_linear<LutWeights<kBits, Number, Groups::kSpans>>
                                     : launch_linear<LutWeights<kBits, Number, Groups::kAny>>;
}

template <int kBits>
Launch find_by_dtype(const Weight& weight, Dtype dtype) {
  if (dtype == Dtype::kFloat16) return find_by_groups<kBits, __half>(weight);
  if (dtype == Dtype::kBFloat16) return find_by_groups<kBits, __nv_bfloat16>(weight);
  return nullptr;
}

}  // namespace

Launch find_lut_launch(const Weight& weight, Dtype dtype) {
  switch (weight.bits) {
    case 2:
      return find_by_dtype<2>(weight, dtype);
    case 3:
      return find_by_dtype<3>(weight, dtype);
    case 4:
      return find_by_dtype<4>(weight, dtype);
    default:
      return nullptr;
  }
}

}  // namespace requant::cuda
