// The classes in which executed instructions are counted.
#pragma once

#include <cstdint>
#include <string_view>

namespace gpusim {

enum class InstructionClass : uint8_t {
  kInteger,
  kHalf,
  kFloat,
  kDouble,
  kSpecialFunction,
  kConversion,
  kMove,
  kPredicate,
  kControl,
  kParameterLoad,
  kGlobalLoad,
  kGlobalStore,
  kSharedLoad,
  kSharedStore,
  kLocal,
  kGenericAccess,
  kAtomic,
  kAsyncCopy,
  kMatrixLoad,
  kMatrix,
  kWarp,
  kBarrier,
  kHint,
  kCount,
};

struct InstructionClassTraits {
  std::string_view name;
  std::string_view members;
};

constexpr InstructionClassTraits kInstructionClasses[static_cast<int>(InstructionClass::kCount)] = {
    {"integer", "integer and bit operations: add, mad, shl, lop3, prmt, bfe, popc, dp4a, ..."},
    {"half", "arithmetic in f16 and bf16, packed or not"},
    {"float", "arithmetic in f32"},
    {"double", "arithmetic in f64"},
    {"special_function", "ex2, lg2, rcp, sqrt, rsqrt, sin, cos, tanh, and div of floating-point numbers"},
    {"conversion", "cvt"},
    {"move", "mov, selp, slct, cvta and isspacep; most disappear in machine code"},
    {"predicate", "setp, set, and logic on predicates"},
    {"control", "bra, brx, ret, exit, trap, nanosleep"},
    {"parameter_load", "ld.param and ld.const; operands of other instructions in machine code"},
    {"global_load", "ld.global and ldu"},
    {"global_store", "st.global"},
    {"shared_load", "ld.shared"},
    {"shared_store", "st.shared"},
    {"local", "ld.local and st.local"},
    {"generic_access", "ld and st that find out the space at run time"},
    {"atomic", "atom and red"},
    {"async_copy", "cp.async and its groups"},
    {"matrix_load", "ldmatrix, stmatrix and movmatrix"},
    {"matrix", "mma"},
    {"warp", "shfl, vote, match, redux, activemask, bar.warp.sync"},
    {"barrier", "bar, barrier, membar and fence"},
    {"hint", "prefetch, createpolicy and other hints without effect here"},
};

}  // namespace gpusim
