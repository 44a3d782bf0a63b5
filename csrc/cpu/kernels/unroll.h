// Compile-time loops. The function gets an Index, whose value is a constant.
#pragma once

#define REQUANT_INLINE __attribute__((always_inline))

namespace requant::cpu::REQUANT_ISA {
namespace {

template <int kValue>
struct Index {
  static constexpr int value = kValue;
};

// function(Index<kBegin>{}), ..., function(Index<kEnd - 1>{})
template <int kBegin, int kEnd, class Function>
REQUANT_INLINE inline void unroll(Function function) {
  if constexpr (kBegin < kEnd) {
    function(Index<kBegin>{});
    unroll<kBegin + 1, kEnd>(function);
  }
}

template <class T>
T smaller(T a, T b) {
  return a < b ? a : b;
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
