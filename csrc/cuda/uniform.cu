// The linear kernels of format `uniform`.
#include "cuda/formats/uniform.cuh"
#include "cuda/launch.cuh"

namespace requant::cuda {
namespace {

template <int kBits, class Number, bool kHasZero>
Launch find_by_groups(const Weight& weight) {
  return has_scales_by_spans(weight) ? launch_linear<UniformWeights<kBits, Number, kHasZero, Groups::kSpans>>
                                     : launch_linear<UniformWeights<kBits, Number, kHasZero, Groups::kAny>>;
}

template <int kBits, class Number>
Launch find_by_zero(const Weight& weight) {
  return weight.zero != nullptr ? find_by_groups<kBits, Number, true>(weight)
                                : find_by_groups<kBits, Number, false>(weight);
}

template <int kBits>
Launch find_by_dtype(const Weight& weight, Dtype dtype) {
  if (dtype == Dtype::kFloat16) return find_by_zero<kBits, __half>(weight);
  if (dtype == Dtype::kBFloat16) return find_by_zero<kBits, __nv_bfloat16>(weight);
  return nullptr;
}

}  // namespace

Launch find_uniform_launch(const Weight& weight, Dtype dtype) {
  switch (weight.bits) {
    case 2:
      return find_by_dtype<2>(weight, dtype);
    case 3:
      return find_by_dtype<3>(weight, dtype);
    case 4:
      return find_by_dtype<4>(weight, dtype);
    case 8:
      return find_by_dtype<8>(weight, dtype);
    default:
      return nullptr;
  }
}

}  // namespace requant::cuda
