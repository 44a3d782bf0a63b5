// The Python module _gpusim: raw PTX on buffers at given addresses. tests/helpers/simulated_gpu.py makes it
// comfortable.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "execution/instruction_class.h"
#include "simulator.h"

namespace py = pybind11;
using gpusim::Access;
using gpusim::Dimensions;
using gpusim::LaunchReport;
using gpusim::Simulator;

namespace {

// One to three extents.
Dimensions to_dimensions(const py::object& extents) {
  if (py::isinstance<py::int_>(extents)) return {extents.cast<unsigned>()};
  const auto list = extents.cast<std::vector<unsigned>>();
  if (list.empty() || list.size() > 3) throw std::invalid_argument("a grid or block has one to three extents");
  return {list[0], list.size() > 1 ? list[1] : 1, list.size() > 2 ? list[2] : 1};
}

// The bytes of an argument, by the type of its parameter.
std::vector<std::byte> pack(const py::handle& value, const gpusim::Parameter& parameter) {
  std::vector<std::byte> bytes(parameter.bytes);
  if (py::isinstance<py::bytes>(value)) {
    const auto text = value.cast<std::string>();
    if (text.size() != bytes.size()) throw std::invalid_argument("parameter " + parameter.name + " has another size");
    std::memcpy(bytes.data(), text.data(), text.size());
  } else if (parameter.type == "f32") {
    const float number = value.cast<float>();
    std::memcpy(bytes.data(), &number, sizeof number);
  } else if (parameter.type == "f64") {
    const double number = value.cast<double>();
    std::memcpy(bytes.data(), &number, sizeof number);
  } else {
    if (bytes.size() > 8) throw std::invalid_argument("parameter " + parameter.name + " wants bytes");
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!integer) throw py::error_already_set();
    const uint64_t bits = PyLong_AsUnsignedLongLongMask(integer.ptr());
    std::memcpy(bytes.data(), &bits, bytes.size());
  }
  return bytes;
}

LaunchReport launch(Simulator& simulator, const std::string& kernel, const py::object& grid, const py::object& block,
                    const py::sequence& arguments, size_t dynamic_shared_bytes) {
  const auto parameters = simulator.parameters(kernel);
  if (arguments.size() != parameters.size()) {
    throw std::invalid_argument(kernel + " has " + std::to_string(parameters.size()) + " parameters, got " +
                                std::to_string(arguments.size()) + " arguments");
  }
  std::vector<std::vector<std::byte>> packed;
  std::vector<void*> pointers;
  for (size_t i = 0; i < parameters.size(); ++i) packed.push_back(pack(arguments[i], parameters[i]));
  for (auto& bytes : packed) pointers.push_back(bytes.data());
  const Dimensions grid_size = to_dimensions(grid), block_size = to_dimensions(block);
  py::gil_scoped_release release;
  return simulator.launch(kernel, grid_size, block_size, dynamic_shared_bytes, pointers.data());
}

}  // namespace

PYBIND11_MODULE(_gpusim, module) {
  module.doc() = "A functional simulator of NVIDIA GPUs that executes PTX and checks it (tests/gpusim/simulator.h).";
  py::register_exception<gpusim::SimulationError>(module, "SimulationError", PyExc_RuntimeError);
  py::register_exception<gpusim::ParseError>(module, "ParseError", PyExc_ValueError);

  py::enum_<Access>(module, "Access")
      .value("READ_ONLY", Access::kReadOnly)
      .value("READ_WRITE", Access::kReadWrite)
      .value("UNINITIALISED", Access::kUninitialised);
  py::class_<gpusim::Parameter>(module, "Parameter")
      .def_readonly("name", &gpusim::Parameter::name)
      .def_readonly("type", &gpusim::Parameter::type)
      .def_readonly("bytes", &gpusim::Parameter::bytes)
      .def_readonly("alignment", &gpusim::Parameter::alignment)
      .def_readonly("offset", &gpusim::Parameter::offset);
  py::class_<gpusim::Options>(module, "Options")
      .def_readwrite("check_races", &gpusim::Options::check_races)
      .def_readwrite("check_initialised", &gpusim::Options::check_initialised)
      .def_readwrite("count_lines", &gpusim::Options::count_lines)
      .def_readwrite("instruction_limit", &gpusim::Options::instruction_limit);
  py::class_<gpusim::InstructionCount>(module, "InstructionCount")
      .def_readonly("warp", &gpusim::InstructionCount::warp)
      .def_readonly("thread", &gpusim::InstructionCount::thread);
  py::class_<gpusim::GlobalTraffic>(module, "GlobalTraffic")
      .def_readonly("requests", &gpusim::GlobalTraffic::requests)
      .def_readonly("sectors", &gpusim::GlobalTraffic::sectors)
      .def_readonly("bytes", &gpusim::GlobalTraffic::bytes);
  py::class_<gpusim::SharedTraffic>(module, "SharedTraffic")
      .def_readonly("requests", &gpusim::SharedTraffic::requests)
      .def_readonly("wavefronts", &gpusim::SharedTraffic::wavefronts)
      .def_readonly("ideal_wavefronts", &gpusim::SharedTraffic::ideal_wavefronts);
  py::class_<gpusim::LineCount>(module, "LineCount")
      .def_readonly("line", &gpusim::LineCount::line)
      .def_readonly("text", &gpusim::LineCount::text)
      .def_readonly("count", &gpusim::LineCount::count)
      .def_readonly("global_traffic", &gpusim::LineCount::global)
      .def_readonly("shared_traffic", &gpusim::LineCount::shared);
  py::class_<LaunchReport>(module, "LaunchReport")
      .def_readonly("kernel", &LaunchReport::kernel)
      .def_readonly("static_shared_bytes", &LaunchReport::static_shared_bytes)
      .def_readonly("dynamic_shared_bytes", &LaunchReport::dynamic_shared_bytes)
      .def_readonly("local_bytes", &LaunchReport::local_bytes)
      .def_property_readonly("instructions",
                             [](const LaunchReport& report) {
                               py::dict counts;
                               for (const auto& entry : report.instructions) counts[entry.name.c_str()] = entry.count;
                               return counts;
                             })
      .def_readonly("total", &LaunchReport::total)
      .def_readonly("global_loads", &LaunchReport::global_loads)
      .def_readonly("global_stores", &LaunchReport::global_stores)
      .def_readonly("global_atomics", &LaunchReport::global_atomics)
      .def_readonly("shared_loads", &LaunchReport::shared_loads)
      .def_readonly("shared_stores", &LaunchReport::shared_stores)
      .def_readonly("shared_atomics", &LaunchReport::shared_atomics)
      .def_readonly("matrix_products", &LaunchReport::matrix_products)
      .def_readonly("barriers", &LaunchReport::barriers)
      .def_readonly("lines", &LaunchReport::lines);
  py::class_<Simulator>(module, "Simulator")
      .def(py::init<>())
      .def_readonly("options", &Simulator::options)
      .def("load", &Simulator::load, py::arg("ptx"))
      .def("kernels", &Simulator::kernels)
      .def("parameters", &Simulator::parameters, py::arg("kernel"))
      .def("static_shared_bytes", &Simulator::static_shared_bytes, py::arg("kernel"))
      .def("max_threads", &Simulator::max_threads, py::arg("kernel"))
      .def("add_region", &Simulator::add_region, py::arg("address"), py::arg("bytes"), py::arg("access"),
           py::arg("name"))
      .def("clear_regions", &Simulator::clear_regions)
      .def("mark_initialised", &Simulator::mark_initialised, py::arg("address"), py::arg("bytes"))
      .def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
           py::arg("dynamic_shared_bytes") = 0);
  py::dict classes;
  for (const auto& entry : gpusim::kInstructionClasses) {
    classes[std::string(entry.name).c_str()] = std::string(entry.members);
  }
  module.attr("INSTRUCTION_CLASSES") = classes;
}
