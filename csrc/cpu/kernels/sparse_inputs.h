// x as the sparse part is multiplied with it: fp32, a few tokens side by side, so that one entry meets them all in one
// register. A row of zeros stands first, for lanes without an entry.
//
//   [block of tokens][-1 | input 0 | input 1 | ...][columns]       a column that is no token is zero
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/buffer.h"
#include "kernels/parallel.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int kMostColumns = sizeof(Isa::Floats) / sizeof(float);

// Tokens side by side, for a call of so many.
constexpr int sparse_columns(int64_t tokens) {
  return tokens == 1 ? 1 : tokens <= 4 ? 4 : tokens <= 8 && kMostColumns > 8 ? 8 : kMostColumns;
}

class SparseInputs {
 public:
  // No tokens: there is no sparse part.
  SparseInputs(int64_t tokens, int64_t inputs)
      : columns_(sparse_columns(tokens)),
        tokens_(tokens),
        blocks_((tokens + columns_ - 1) / columns_),
        block_length_((1 + inputs) * columns_),
        x_(blocks_ * block_length_) {}

  int columns() const { return columns_; }
  int64_t blocks() const { return blocks_; }
  // Input 0 of a block of tokens.
  const float* block(int64_t index) const { return x_.data() + index * block_length_ + columns_; }

  // Inputs first ..< first + count of one token.
  void store(int64_t token, int64_t first, int64_t count, const float* x) {
    float* column = x_.data() + token / columns_ * block_length_ + (1 + first) * columns_ + token % columns_;
    for (int64_t i = 0; i < count; ++i) column[i * columns_] = x[i];
  }

  // Writes the zeros. Every thread of the team calls this.
  void clear_rest(const Team& team) {
    if (blocks_ == 0) return;
    if (team.thread == 0) {
      for (int64_t i = 0; i < blocks_; ++i) std::memset(x_.data() + i * block_length_, 0, columns_ * sizeof(float));
    }
    const int64_t used = tokens_ - (blocks_ - 1) * columns_;
    float* const last = x_.data() + (blocks_ - 1) * block_length_;
    const auto [begin, end] = team.share(block_length_ / columns_);
    for (int64_t row = begin; row < end && used < columns_; ++row) {
      std::memset(last + row * columns_ + used, 0, (columns_ - used) * sizeof(float));
    }
  }

 private:
  int columns_;
  int64_t tokens_, blocks_, block_length_;
  Buffer<float> x_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
