#include "device_bindings.h"

#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "simulated_device.h"

namespace py = pybind11;

namespace gpusim {
namespace {

std::tuple<unsigned, unsigned, unsigned> as_tuple(const Dimensions& dimensions) {
  return {dimensions.x, dimensions.y, dimensions.z};
}

Access access_named(const std::string& name) {
  static const std::map<std::string, Access> names = {
      {"read_only", Access::kReadOnly}, {"read_write", Access::kReadWrite}, {"uninitialised", Access::kUninitialised}};
  const auto found = names.find(name);
  if (found == names.end()) {
    throw std::invalid_argument("access must be read_only, read_write or uninitialised, got " + name);
  }
  return found->second;
}

py::dict as_dict(const GlobalTraffic& traffic) {
  using namespace py::literals;
  return py::dict("requests"_a = traffic.requests, "sectors"_a = traffic.sectors, "bytes"_a = traffic.bytes);
}

py::dict as_dict(const SharedTraffic& traffic) {
  using namespace py::literals;
  return py::dict("requests"_a = traffic.requests, "wavefronts"_a = traffic.wavefronts,
                  "ideal_wavefronts"_a = traffic.ideal_wavefronts);
}

py::dict as_dict(const InstructionCount& count) {
  using namespace py::literals;
  return py::dict("warp"_a = count.warp, "thread"_a = count.thread);
}

// What the simulator counted.
py::dict as_dict(const LaunchReport& report) {
  using namespace py::literals;
  py::dict instructions;
  for (const ClassCount& entry : report.instructions) instructions[py::str(entry.name)] = as_dict(entry.count);
  py::list lines;
  for (const LineCount& line : report.lines) {
    lines.append(py::dict("line"_a = line.line, "text"_a = line.text, "count"_a = as_dict(line.count),
                          "global"_a = as_dict(line.global), "shared"_a = as_dict(line.shared)));
  }
  return py::dict("static_shared_bytes"_a = report.static_shared_bytes, "local_bytes"_a = report.local_bytes,
                  "total"_a = as_dict(report.total), "instructions"_a = instructions,
                  "global_loads"_a = as_dict(report.global_loads), "global_stores"_a = as_dict(report.global_stores),
                  "global_atomics"_a = as_dict(report.global_atomics), "shared_loads"_a = as_dict(report.shared_loads),
                  "shared_stores"_a = as_dict(report.shared_stores),
                  "shared_atomics"_a = as_dict(report.shared_atomics), "matrix_products"_a = report.matrix_products,
                  "barriers"_a = report.barriers, "lines"_a = lines);
}

dim3 extents(const std::tuple<unsigned, unsigned, unsigned>& value) {
  return {std::get<0>(value), std::get<1>(value), std::get<2>(value)};
}

// What a launcher does, through the runtime's own functions; returns what CUDA calls the error.
std::string launch(const std::string& kernel, const std::tuple<unsigned, unsigned, unsigned>& grid,
                   const std::tuple<unsigned, unsigned, unsigned>& block, size_t dynamic_shared_bytes,
                   std::string arguments) {
  SimulatedDevice& device = SimulatedDevice::instance();
  std::vector<void*> pointers;
  for (const Parameter& parameter : device.simulator().parameters(kernel)) {
    pointers.push_back(&arguments.at(parameter.offset));
  }
  cudaLaunchKernel(device.function_of(kernel), extents(grid), extents(block), pointers.data(), dynamic_shared_bytes,
                   nullptr);
  return cudaGetErrorString(cudaGetLastError());
}

std::string allow_dynamic_shared_bytes(const std::string& kernel, int bytes) {
  const void* function = SimulatedDevice::instance().function_of(kernel);
  cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  return cudaGetErrorString(cudaGetLastError());
}

// A launcher turns the runtime's error code into an exception of its own; the simulator knows more.
void throw_failure_instead(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::runtime_error&) {
    SimulatedDevice::instance().rethrow_failure();
    throw;
  }
}

}  // namespace

void define_device(py::module_& module) {
  py::register_local_exception<SimulationError>(module, "SimulationError", PyExc_RuntimeError);
  py::register_local_exception<ParseError>(module, "ParseError", PyExc_RuntimeError);
  py::register_local_exception_translator(&throw_failure_instead);

  py::class_<LaunchRecord>(module, "Launch", py::module_local(), "A launch that the simulated device accepted.")
      .def_readonly("kernel", &LaunchRecord::kernel)
      .def_property_readonly("grid", [](const LaunchRecord& launch) { return as_tuple(launch.grid); })
      .def_property_readonly("block", [](const LaunchRecord& launch) { return as_tuple(launch.block); })
      .def_readonly("dynamic_shared_bytes", &LaunchRecord::dynamic_shared_bytes)
      .def_readonly("stream", &LaunchRecord::stream)
      .def_property_readonly("arguments", [](const LaunchRecord& launch) { return py::bytes(launch.arguments); })
      .def_property_readonly("report", [](const LaunchRecord& launch) { return as_dict(launch.report); });

  const auto device = [] { return &SimulatedDevice::instance(); };
  module.attr("MULTIPROCESSORS") = kMultiprocessors;
  module.def("load_ptx", [device](const std::string& ptx) { device()->simulator().load(ptx); });
  module.def("kernels", [device] { return device()->simulator().kernels(); });
  module.def(
      "parameters",
      [device](const std::string& kernel) {
        using namespace py::literals;
        py::list parameters;
        for (const Parameter& parameter : device()->simulator().parameters(kernel)) {
          parameters.append(py::dict("name"_a = parameter.name, "type"_a = parameter.type, "bytes"_a = parameter.bytes,
                                     "offset"_a = parameter.offset));
        }
        return parameters;
      },
      "Of a kernel: name, PTX type, bytes, and offset in the parameter block.");
  module.def(
      "add_region",
      [device](uint64_t address, uint64_t bytes, const std::string& access, const std::string& name) {
        device()->simulator().add_region(address, bytes, access_named(access), name);
      },
      "Memory that kernels may touch; access is read_only, read_write or uninitialised.");
  module.def("clear_regions", [device] { device()->simulator().clear_regions(); });
  module.def("mark_initialised",
             [device](uint64_t address, uint64_t bytes) { device()->simulator().mark_initialised(address, bytes); });
  module.def(
      "launch", &launch,
      "Of any kernel, with the bytes of its parameter block; returns CUDA's words for what the runtime answers.");
  module.def("allow_dynamic_shared_bytes", &allow_dynamic_shared_bytes);
  module.def("count_lines", [device](bool count) { device()->simulator().options.count_lines = count; });
  module.def("launches", [device] { return device()->launches(); }, "The log, oldest first.");
  module.def("clear_launches", [device] { device()->clear_launches(); });
  module.def(
      "raise_failure", [device] { device()->rethrow_failure(); },
      "Raises what stopped a kernel, unless a launcher's exception has already told.");
}

}  // namespace gpusim
