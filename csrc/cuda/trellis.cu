// The linear kernels of format `trellis`.
#include "cuda/formats/trellis.cuh"
#include "cuda/launch.cuh"

namespace requant::cuda {
namespace {

template <int kBits>
Launch find_by_code(TrellisCode code) {
  switch (code) {
    case TrellisCode::k1mad:
      return launch_linear<TrellisWeights<kBits, OneMad>>;
    case TrellisCode::k3inst:
      return launch_linear<TrellisWeights<kBits, ThreeInst>>;
    case TrellisCode::kHyb:
      return launch_linear<TrellisWeights<kBits, Hyb>>;
  }
  return nullptr;
}

}  // namespace

Launch find_trellis_launch(const Weight& weight) {
  switch (weight.bits) {
    case 2:
      return find_by_code<2>(weight.trellis.code);
    case 3:
      return find_by_code<3>(weight.trellis.code);
    case 4:
      return find_by_code<4>(weight.trellis.code);
    default:
      return nullptr;
  }
}

}  // namespace requant::cuda
