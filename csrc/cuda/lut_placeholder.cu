// Stands where the linear kernels of format `lut` will be.
#include "cuda/launch.h"

namespace requant::cuda {

Launch find_lut_launch(int, Dtype) { return nullptr; }

}  // namespace requant::cuda
