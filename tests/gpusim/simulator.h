// A functional simulator of NVIDIA GPUs: executes the PTX (sm_80) that nvcc and Triton emit, on the host, and checks
// it.
//
// Kernels run on real host memory: a kernel argument that is a pointer is a host address, and every byte that a kernel
// may touch belongs to a registered region. The first violation of the memory or execution model ends the launch with a
// SimulationError that names kernel, PTX line, instruction, block and thread.
//
// What is modelled, and what is not: tests/gpusim/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gpusim {

struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
};

// What a kernel may do with a region.
enum class Access {
  kReadOnly,
  kReadWrite,
  kUninitialised,  // writable; a byte may be read only after a kernel has written it
};

// One kernel parameter, in the order of declaration.
struct Parameter {
  std::string name;
  std::string type;  // the PTX type: "u64", "b32", "f32", ...; "b8" for structs and arrays
  size_t bytes;
  size_t alignment;
  size_t offset;  // in the parameter block
};

struct Options {
  bool check_races = true;                     // shared memory between barriers, global memory between blocks
  bool check_initialised = true;               // reads of shared and kUninitialised memory that nobody has written
  bool count_lines = false;                    // fill LaunchReport::lines
  uint64_t instruction_limit = 4'000'000'000;  // warp instructions per launch; more is taken for an endless loop
};

// Executed instructions: once per warp, and once per thread whose guard predicate holds.
struct InstructionCount {
  uint64_t warp = 0;
  uint64_t thread = 0;
};

// How many instructions of each class of LaunchReport::instructions; the table is instruction_class.h.
struct ClassCount {
  std::string name;
  InstructionCount count;
};

// Accesses to global memory. A request is one warp instruction with at least one thread that takes part.
struct GlobalTraffic {
  uint64_t requests = 0;
  uint64_t sectors = 0;  // distinct aligned 32-byte pieces per request
  uint64_t bytes = 0;    // asked for by threads
};

// Accesses to shared memory. A wavefront serves each of the 32 four-byte banks once. Ideal: without bank conflicts.
struct SharedTraffic {
  uint64_t requests = 0;
  uint64_t wavefronts = 0;
  uint64_t ideal_wavefronts = 0;
};

// What one PTX instruction did in a launch.
struct LineCount {
  unsigned line;     // in the text that was loaded, from 1
  std::string text;  // the instruction
  InstructionCount count;
  GlobalTraffic global;
  SharedTraffic shared;
};

struct LaunchReport {
  std::string kernel;
  Dimensions grid, block;
  size_t static_shared_bytes = 0;
  size_t dynamic_shared_bytes = 0;
  size_t local_bytes = 0;                // per thread
  std::vector<ClassCount> instructions;  // classes that were executed
  InstructionCount total;
  GlobalTraffic global_loads, global_stores, global_atomics;
  SharedTraffic shared_loads, shared_stores, shared_atomics;
  uint64_t matrix_products = 0;  // mma per warp
  uint64_t barriers = 0;         // completed, over all blocks
  std::vector<LineCount> lines;  // in program order, only with Options::count_lines
};

// A kernel did what it must not do.
class SimulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The PTX text cannot be understood.
class ParseError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Machine;

// One device. Not for several threads at a time.
class Simulator {
 public:
  Simulator();
  ~Simulator();
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;

  Options options;

  // Adds the kernels and variables of a PTX module. A kernel of the same name as an earlier one takes its place.
  // Throws ParseError. Whether all instructions of a kernel are known turns out when it is first asked for.
  void load(const std::string& ptx);

  // Names of the kernels, as in the PTX text (mangled), sorted.
  std::vector<std::string> kernels() const;

  // These throw std::invalid_argument for an unknown kernel, ParseError for one with an unknown instruction.
  std::vector<Parameter> parameters(const std::string& kernel) const;
  size_t parameter_bytes(const std::string& kernel) const;
  size_t static_shared_bytes(const std::string& kernel) const;
  unsigned max_threads(const std::string& kernel) const;  // per block, by .maxntid or .reqntid; 1024 without

  // Memory that kernels may touch. The same address and size again replaces the region and forgets which bytes were
  // written; an empty region is ignored. Throws std::invalid_argument where a region overlaps another.
  void add_region(uint64_t address, uint64_t bytes, Access access, const std::string& name);
  void clear_regions();

  // The host has written these bytes of a kUninitialised region (as cudaMemcpy or cudaMemset would). Bytes outside
  // every region are ignored.
  void mark_initialised(uint64_t address, uint64_t bytes);

  // Runs a kernel to its end. arguments[i] points to the bytes of parameter i. Throws SimulationError, or
  // std::invalid_argument for a launch that no device of compute capability 8.0 accepts.
  LaunchReport launch(const std::string& kernel, Dimensions grid, Dimensions block, size_t dynamic_shared_bytes,
                      void** arguments);

 private:
  std::unique_ptr<Machine> machine_;
};

}  // namespace gpusim
