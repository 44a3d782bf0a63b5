#include "bindings/viterbi.h"

#include <cstdint>

#include "cpu/dispatch.h"

namespace requant::cpu {
namespace {

using Address = uintptr_t;

void encode(int isa, Address targets, int64_t sequences, Address values, int step_bits, int values_per_step,
            Address states, int threads) {
  const InstructionSet& set = instruction_sets().at(static_cast<size_t>(isa));
  const pybind11::gil_scoped_release released;
  set.viterbi({reinterpret_cast<const float*>(targets), sequences, reinterpret_cast<const float*>(values), step_bits,
               values_per_step, reinterpret_cast<uint16_t*>(states), threads});
}

}  // namespace

void define_viterbi(pybind11::module_& module) { module.def("viterbi", &encode); }

}  // namespace requant::cpu
