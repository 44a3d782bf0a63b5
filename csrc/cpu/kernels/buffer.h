// Memory for the length of one call.
#pragma once

#include <cstdint>
#include <new>

namespace requant::cpu::REQUANT_ISA {
namespace {

// `count` uninitialised elements at an aligned address; std::bad_alloc if there are none to be had.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(nullptr) {
    if (count > 0) data_ = static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64}));
  }
  ~Buffer() { ::operator delete(data_, std::align_val_t{64}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return data_; }

 private:
  T* data_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
