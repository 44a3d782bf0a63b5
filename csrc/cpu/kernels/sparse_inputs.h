// x as the sparse part is multiplied with it: fp32, a few tokens side by side, so that one entry meets them all in one
// register. A row of zeros stands first, for lanes without an entry.
//
//   [block of tokens][-1 | input 0 | input 1 | ...][columns]       a column that is no token holds anything
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/buffer.h"
#include "kernels/parallel.h"
#include "kernels/products.h"
#include "kernels/unroll.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

class SparseInputs {
 public:
  // No tokens: there is no sparse part.
  SparseInputs(int64_t tokens, int64_t inputs)
      : columns_(static_cast<int>(smaller<int64_t>(tokens, kMostColumns))),
        tokens_(tokens),
        blocks_((tokens + kMostColumns - 1) / kMostColumns),
        block_length_((1 + inputs) * columns_),
        x_(blocks_ * block_length_ + kMostColumns) {}

  int columns() const { return columns_; }
  int64_t blocks() const { return blocks_; }
  int64_t tokens(int64_t block) const { return smaller<int64_t>(columns_, tokens_ - block * columns_); }
  // Input 0 of a block of tokens.
  const float* block(int64_t index) const { return x_.data() + index * block_length_ + columns_; }

  // Inputs first ..< first + count of one token.
  void store(int64_t token, int64_t first, int64_t count, const float* x) {
    float* column = x_.data() + token / columns_ * block_length_ + (1 + first) * columns_ + token % columns_;
    for (int64_t i = 0; i < count; ++i) column[i * columns_] = x[i];
  }

  // Every thread of the team calls this.
  void store_zeros(const Team& team) {
    const auto [begin, end] = team.share(blocks_);
    for (int64_t i = begin; i < end; ++i) std::memset(x_.data() + i * block_length_, 0, columns_ * sizeof(float));
  }

 private:
  int columns_;
  int64_t tokens_, blocks_, block_length_;
  Buffer<float> x_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
