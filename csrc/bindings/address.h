// Tensors arrive from Python as addresses; 0 stands for an absent one.
#pragma once

#include <cstdint>

namespace requant {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace requant
