// The linear kernels of format `uniform`.
#include "cuda/formats/uniform.cuh"
#include "cuda/launch.cuh"

namespace requant::cuda {

Launch find_uniform_launch(int bits, Dtype dtype) {
  switch (bits) {
    case 2:
      return find_launch<UniformWeights, 2>(dtype);
    case 3:
      return find_launch<UniformWeights, 3>(dtype);
    case 4:
      return find_launch<UniformWeights, 4>(dtype);
    case 8:
      return find_launch<UniformWeights, 8>(dtype);
    default:
      return nullptr;
  }
}

}  // namespace requant::cuda
