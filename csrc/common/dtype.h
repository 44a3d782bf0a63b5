// Element types of tensors that cross the boundary to Python.
#pragma once

namespace requant {

enum class Dtype : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

}  // namespace requant
