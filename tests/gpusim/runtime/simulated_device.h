// The device that the stand-in CUDA runtime (cudart.cpp) launches kernels on: the simulator, behind the limits that a
// real device of compute capability 8.0 sets, with a log of every launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "simulator.h"

namespace gpusim {

constexpr int kMultiprocessors = 108;
constexpr size_t kDefaultSharedBytes = 48 << 10;   // per block, static and dynamic, unless a kernel asks for more
constexpr size_t kLargestSharedBytes = 163 << 10;  // that it may ask for

// A launch that the device accepted.
struct LaunchRecord {
  std::string kernel;
  Dimensions grid, block;
  size_t dynamic_shared_bytes;
  uintptr_t stream;
  std::string arguments;  // the bytes of the parameter block, parameter i at its offset
  LaunchReport report;    // empty if the simulator stopped the kernel
};

class SimulatedDevice {
 public:
  // The one device of the process: what a CUDA runtime, a set of C functions, works on.
  static SimulatedDevice& instance();

  // `function` is how host code names a kernel, `name` how PTX does.
  void register_kernel(const void* function, const char* name);
  const void* function_of(const std::string& name) const;  // null: not registered
  cudaError_t allow_dynamic_shared_bytes(const void* function, int bytes);
  cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic_shared_bytes,
                     cudaStream_t stream);

  // Keeps the first error until somebody asks, as CUDA does.
  cudaError_t remember(cudaError_t error);
  cudaError_t last_error() const { return last_error_; }
  cudaError_t take_last_error();

  // Throws what stopped a kernel, once.
  void rethrow_failure();

  Simulator& simulator() { return simulator_; }
  const std::vector<LaunchRecord>& launches() const { return launches_; }
  void clear_launches() { launches_.clear(); }

 private:
  SimulatedDevice() = default;
  cudaError_t check(const std::string& kernel, dim3 grid, dim3 block, size_t dynamic_shared_bytes) const;
  std::string parameter_block(const std::string& kernel, void** arguments) const;

  std::recursive_mutex mutex_;
  Simulator simulator_;
  std::map<const void*, std::string> kernels_;
  std::map<std::string, size_t> allowed_dynamic_shared_bytes_;
  std::vector<LaunchRecord> launches_;
  std::exception_ptr failure_;
  cudaError_t last_error_ = cudaSuccess;
};

}  // namespace gpusim
