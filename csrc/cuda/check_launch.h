// What follows every launch.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace requant::cuda {

// Throws if the launch just made was refused; what happens while the kernel runs shows later, as always with CUDA.
inline void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA could not start ") + what + ": " + cudaGetErrorString(error));
  }
}

}  // namespace requant::cuda
