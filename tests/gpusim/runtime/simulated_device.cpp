#include "simulated_device.h"

#include <cstring>
#include <stdexcept>
#include <utility>

namespace gpusim {
namespace {

Dimensions dimensions(dim3 value) { return {value.x, value.y, value.z}; }

}  // namespace

SimulatedDevice& SimulatedDevice::instance() {
  static SimulatedDevice device;
  return device;
}

void SimulatedDevice::register_kernel(const void* function, const char* name) { kernels_[function] = name; }

const void* SimulatedDevice::function_of(const std::string& name) const {
  for (const auto& [function, kernel] : kernels_) {
    if (kernel == name) return function;
  }
  return nullptr;
}

cudaError_t SimulatedDevice::allow_dynamic_shared_bytes(const void* function, int bytes) {
  const auto found = kernels_.find(function);
  if (found == kernels_.end()) return cudaErrorInvalidDeviceFunction;
  const size_t static_bytes = simulator_.static_shared_bytes(found->second);
  if (bytes < 0 || bytes + static_bytes > kLargestSharedBytes) return cudaErrorInvalidValue;
  allowed_dynamic_shared_bytes_[found->second] = bytes;
  return cudaSuccess;
}

cudaError_t SimulatedDevice::check(const std::string& kernel, dim3 grid, dim3 block,
                                   size_t dynamic_shared_bytes) const {
  const bool empty = grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0;
  const bool large_grid = grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535;
  const bool large_block = block.x > 1024 || block.y > 1024 || block.z > 64 ||
                           size_t{block.x} * block.y * block.z > simulator_.max_threads(kernel);
  if (empty || large_grid || large_block) return cudaErrorInvalidConfiguration;
  const auto allowed = allowed_dynamic_shared_bytes_.find(kernel);
  const size_t static_bytes = simulator_.static_shared_bytes(kernel);
  const bool fits = allowed == allowed_dynamic_shared_bytes_.end()
                        ? static_bytes + dynamic_shared_bytes <= kDefaultSharedBytes
                        : dynamic_shared_bytes <= allowed->second;
  return fits ? cudaSuccess : cudaErrorInvalidValue;
}

std::string SimulatedDevice::parameter_block(const std::string& kernel, void** arguments) const {
  std::string bytes(simulator_.parameter_bytes(kernel), '\0');
  const std::vector<Parameter> parameters = simulator_.parameters(kernel);
  for (size_t i = 0; i < parameters.size(); ++i) {
    std::memcpy(&bytes[parameters[i].offset], arguments[i], parameters[i].bytes);
  }
  return bytes;
}

cudaError_t SimulatedDevice::launch(const void* function, dim3 grid, dim3 block, void** arguments,
                                    size_t dynamic_shared_bytes, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  const auto found = kernels_.find(function);
  if (found == kernels_.end()) return remember(cudaErrorInvalidDeviceFunction);
  const std::string& kernel = found->second;
  try {
    const cudaError_t error = check(kernel, grid, block, dynamic_shared_bytes);
    if (error != cudaSuccess) return remember(error);
    launches_.push_back({kernel,
                         dimensions(grid),
                         dimensions(block),
                         dynamic_shared_bytes,
                         reinterpret_cast<uintptr_t>(stream),
                         parameter_block(kernel, arguments),
                         {}});
    launches_.back().report =
        simulator_.launch(kernel, dimensions(grid), dimensions(block), dynamic_shared_bytes, arguments);
    return cudaSuccess;
  } catch (const std::exception&) {
    failure_ = std::current_exception();
    return remember(cudaErrorLaunchFailure);
  }
}

cudaError_t SimulatedDevice::remember(cudaError_t error) {
  if (last_error_ == cudaSuccess) last_error_ = error;
  return error;
}

cudaError_t SimulatedDevice::take_last_error() { return std::exchange(last_error_, cudaSuccess); }

void SimulatedDevice::rethrow_failure() {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace gpusim
