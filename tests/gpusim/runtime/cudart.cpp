// A stand-in for the CUDA runtime: the functions that the kernels' launchers and the code that nvcc adds to them call,
// working on the simulated device. A function that is missing here is missed when the module is loaded.
//
// Host code, as nvcc emits it for `kernel<<<grid, block, bytes, stream>>>(arguments)`:
//
//   before main   __cudaRegisterFatBinary, __cudaRegisterFunction for every kernel, __cudaRegisterFatBinaryEnd
//   launch        __cudaPushCallConfiguration(grid, block, bytes, stream), then in the kernel's stub
//                 __cudaGetKernel once, __cudaPopCallConfiguration, __cudaLaunchKernel
#include <cuda_runtime_api.h>

#include <utility>
#include <vector>

#include "simulated_device.h"

namespace {

using gpusim::SimulatedDevice;

struct CallConfiguration {
  dim3 grid, block;
  size_t dynamic_shared_bytes;
  cudaStream_t stream;
};

// Between a launch's `<<<...>>>` and its stub. Launches in arguments of launches nest.
std::vector<CallConfiguration>& call_configurations() {
  static thread_local std::vector<CallConfiguration> configurations;
  return configurations;
}

cudaError_t remember(cudaError_t error) { return SimulatedDevice::instance().remember(error); }

}  // namespace

extern "C" {

// What nvcc's own code calls; declared in the toolkit's crt/host_runtime.h, which only nvcc may include.

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void**, const char* host_function, char*, const char* device_name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  SimulatedDevice::instance().register_kernel(host_function, device_name);
}

// Variables live in the PTX; host code has no way to name them here.
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

char __cudaInitModule(void**) { return 1; }

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t dynamic_shared_bytes, cudaStream_t stream) {
  call_configurations().push_back({grid, block, dynamic_shared_bytes, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* dynamic_shared_bytes, void* stream) {
  if (call_configurations().empty()) return remember(cudaErrorMissingConfiguration);
  const CallConfiguration configuration = call_configurations().back();
  call_configurations().pop_back();
  *grid = configuration.grid;
  *block = configuration.block;
  *dynamic_shared_bytes = configuration.dynamic_shared_bytes;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host_function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host_function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t dynamic_shared_bytes, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, dynamic_shared_bytes, stream);
}

// The runtime's public functions.

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic_shared_bytes,
                             cudaStream_t stream) {
  return SimulatedDevice::instance().launch(function, grid, block, arguments, dynamic_shared_bytes, stream);
}

cudaError_t cudaGetLastError() { return SimulatedDevice::instance().take_last_error(); }

cudaError_t cudaPeekAtLastError() { return SimulatedDevice::instance().last_error(); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "unrecognized error code";
  }
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      return remember(SimulatedDevice::instance().allow_dynamic_shared_bytes(function, value));
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      return value >= -1 && value <= 100 ? cudaSuccess : remember(cudaErrorInvalidValue);
    default:
      return remember(cudaErrorInvalidValue);
  }
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = gpusim::kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = gpusim::kLargestSharedBytes;
      return cudaSuccess;
    default:
      return remember(cudaErrorInvalidValue);
  }
}

}  // extern "C"
