#include "simulator.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "execution/block.h"
#include "execution/decoder.h"
#include "execution/kernel.h"
#include "memory/global_memory.h"
#include "ptx/parser.h"

namespace gpusim {
namespace {

// Compute capability 8.0.
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxBlockZ = 64;
constexpr unsigned kMaxGridX = 0x7fffffff, kMaxGridYz = 65535;
constexpr size_t kMaxSharedBytes = 163 * 1024;

// A variable of a module in global or constant memory.
struct HostVariable {
  std::unique_ptr<std::max_align_t[]> storage;
  uint64_t address;
  uint64_t bytes;
  Access access;
  std::string name;

  explicit HostVariable(const Variable& variable)
      : bytes(variable.bytes),
        access(variable.space == Space::kConstant ? Access::kReadOnly : Access::kReadWrite),
        name(variable.name) {
    const uint64_t alignment = std::max<uint64_t>(variable.alignment, sizeof(std::max_align_t));
    storage = std::make_unique<std::max_align_t[]>((bytes + alignment) / sizeof(std::max_align_t) + 1);
    const auto begin = reinterpret_cast<uint64_t>(storage.get());
    address = (begin + alignment - 1) / alignment * alignment;
    auto* data = reinterpret_cast<uint8_t*>(address);
    std::copy(variable.initial_value.begin(), variable.initial_value.end(), data);
  }
};

// A kernel of a module; modules may hold many that nobody launches.
struct LoadedKernel {
  Function function;
  std::shared_ptr<const ModuleSymbols> symbols;
  std::optional<Kernel> kernel;
};

// Sums what the instructions have counted.
LaunchReport make_report(const Launch& launch) {
  const Kernel& kernel = launch.kernel;
  LaunchReport report;
  report.kernel = kernel.name;
  report.grid = launch.grid;
  report.block = launch.block;
  report.static_shared_bytes = kernel.static_shared_bytes;
  report.dynamic_shared_bytes = launch.dynamic_shared_bytes;
  report.local_bytes = kernel.local_bytes;
  report.barriers = launch.barriers;
  const auto add_count = [](InstructionCount& to, const InstructionCount& count) {
    to.warp += count.warp;
    to.thread += count.thread;
  };
  const auto add_global = [](GlobalTraffic& to, const GlobalTraffic& traffic) {
    to.requests += traffic.requests;
    to.sectors += traffic.sectors;
    to.bytes += traffic.bytes;
  };
  const auto add_shared = [](SharedTraffic& to, const SharedTraffic& traffic) {
    to.requests += traffic.requests;
    to.wavefronts += traffic.wavefronts;
    to.ideal_wavefronts += traffic.ideal_wavefronts;
  };
  std::map<InstructionClass, InstructionCount> classes;
  for (size_t i = 0; i < kernel.instructions.size(); ++i) {
    const Instruction& instruction = kernel.instructions[i];
    const Tally& tally = launch.tallies[i];
    if (!tally.count.warp) continue;
    add_count(report.total, tally.count);
    add_count(classes[instruction.instruction_class], tally.count);
    if (instruction.instruction_class == InstructionClass::kMatrix) report.matrix_products += tally.count.warp;
    const bool atomic = instruction.instruction_class == InstructionClass::kAtomic;
    const bool copies = instruction.instruction_class == InstructionClass::kAsyncCopy;
    const bool loads = instruction.destinations > 0;
    add_global(atomic            ? report.global_atomics
               : loads || copies ? report.global_loads
                                 : report.global_stores,
               tally.global);
    add_shared(atomic ? report.shared_atomics : loads ? report.shared_loads : report.shared_stores, tally.shared);
    if (launch.options.count_lines) {
      report.lines.push_back({kernel.lines[i].line, kernel.lines[i].text, tally.count, tally.global, tally.shared});
    }
  }
  for (const auto& [instruction_class, count] : classes) {
    report.instructions.push_back({std::string(kInstructionClasses[static_cast<int>(instruction_class)].name), count});
  }
  return report;
}

}  // namespace

// What a simulator holds: modules and memory.
class Machine {
 public:
  explicit Machine(const Options& options) : options_(options), global(options) {}

  void load(const std::string& ptx) {
    Module module = parse(ptx);
    const auto symbols = std::make_shared<ModuleSymbols>();
    std::vector<HostVariable> added;
    for (const Variable& variable : module.variables) {
      if (variable.space == Space::kShared) {
        symbols->shared.push_back(variable);
      } else if (variable.bytes) {
        added.emplace_back(variable);
        symbols->placed[variable.name] = {variable.space, added.back().address};
      }
    }
    for (HostVariable& variable : added) {
      add_region(variable);
      variables_.push_back(std::move(variable));
    }
    for (Function& function : module.functions) {
      if (!function.is_entry) continue;
      const std::string name = function.name;
      kernels[name] = {std::move(function), symbols, std::nullopt};
    }
  }

  // Decodes the kernel if this has not been done yet.
  const Kernel& find(const std::string& name) {
    const auto found = kernels.find(name);
    if (found == kernels.end()) throw std::invalid_argument("no kernel '" + name + "' has been loaded");
    LoadedKernel& loaded = found->second;
    if (!loaded.kernel) loaded.kernel = decode(loaded.function, *loaded.symbols);
    return *loaded.kernel;
  }

  void clear_regions() {
    global.clear_regions();
    for (const HostVariable& variable : variables_) add_region(variable);
  }

  LaunchReport launch(const Kernel& kernel, Dimensions grid, Dimensions block, size_t dynamic_shared_bytes,
                      void** arguments) {
    check_limits(kernel, grid, block, dynamic_shared_bytes);
    Launch launch{kernel, grid, block, dynamic_shared_bytes, {}, options_, global, {}};
    launch.parameters.resize(kernel.parameter_bytes);
    for (size_t i = 0; i < kernel.parameters.size(); ++i) {
      std::memcpy(&launch.parameters[kernel.parameters[i].offset], arguments[i], kernel.parameters[i].bytes);
    }
    launch.tallies.resize(kernel.instructions.size());
    global.start_launch();
    SharedMemory shared(kernel.static_shared_bytes + dynamic_shared_bytes, options_);
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) Block(launch, {x, y, z}, shared).run();
      }
    }
    return make_report(launch);
  }

 private:
  void add_region(const HostVariable& variable) {
    global.add_region(variable.address, variable.bytes, variable.access, variable.name);
  }

  static void check_limits(const Kernel& kernel, Dimensions grid, Dimensions block, size_t dynamic_shared_bytes) {
    const auto fail = [&](const std::string& message) { throw std::invalid_argument(kernel.name + ": " + message); };
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (!threads || !grid.x || !grid.y || !grid.z) fail("an empty grid or block");
    if (threads > kMaxThreads || block.z > kMaxBlockZ) fail("more threads in a block than a device runs");
    if (threads > kernel.max_threads) {
      fail(std::to_string(threads) + " threads in a block; the kernel was compiled for at most " +
           std::to_string(kernel.max_threads));
    }
    if (grid.x > kMaxGridX || grid.y > kMaxGridYz || grid.z > kMaxGridYz) fail("a larger grid than a device runs");
    if (kernel.static_shared_bytes + dynamic_shared_bytes > kMaxSharedBytes) {
      fail(std::to_string(kernel.static_shared_bytes + dynamic_shared_bytes) + " bytes of shared memory; a block has " +
           std::to_string(kMaxSharedBytes));
    }
  }

  const Options& options_;
  std::vector<HostVariable> variables_;

 public:
  std::map<std::string, LoadedKernel> kernels;
  GlobalMemory global;
};

Simulator::Simulator() : machine_(std::make_unique<Machine>(options)) {}
Simulator::~Simulator() = default;

void Simulator::load(const std::string& ptx) { machine_->load(ptx); }

std::vector<std::string> Simulator::kernels() const {
  std::vector<std::string> names;
  for (const auto& entry : machine_->kernels) names.push_back(entry.first);
  return names;
}

std::vector<Parameter> Simulator::parameters(const std::string& kernel) const {
  return machine_->find(kernel).parameters;
}

size_t Simulator::parameter_bytes(const std::string& kernel) const { return machine_->find(kernel).parameter_bytes; }

size_t Simulator::static_shared_bytes(const std::string& kernel) const {
  return machine_->find(kernel).static_shared_bytes;
}

unsigned Simulator::max_threads(const std::string& kernel) const { return machine_->find(kernel).max_threads; }

void Simulator::add_region(uint64_t address, uint64_t bytes, Access access, const std::string& name) {
  machine_->global.add_region(address, bytes, access, name);
}

void Simulator::clear_regions() { machine_->clear_regions(); }

void Simulator::mark_initialised(uint64_t address, uint64_t bytes) {
  machine_->global.mark_initialised(address, bytes);
}

LaunchReport Simulator::launch(const std::string& kernel, Dimensions grid, Dimensions block,
                               size_t dynamic_shared_bytes, void** arguments) {
  return machine_->launch(machine_->find(kernel), grid, block, dynamic_shared_bytes, arguments);
}

}  // namespace gpusim
