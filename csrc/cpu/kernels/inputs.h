// The inputs x of one call, made ready once for all tiles.
//
//   rows         [tokens][in_padded]        in the type and order that the products want, zero beyond in_features
//   sums         [tokens][segments][2]      over each segment: the sum of x, and the sum of offset(step) * x
//   sparse       for the sparse part (kernels/sparse_inputs.h)
#pragma once

#include <cstdint>

#include "arguments.h"
#include "kernels/buffer.h"
#include "kernels/conversion.h"
#include "kernels/parallel.h"
#include "kernels/products.h"
#include "kernels/segments.h"
#include "kernels/sparse_inputs.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// What a format adds to the codes of the steps of a block.
struct Offsets {
  template <class Format>
  static Offsets of() {
    Offsets offsets;
    for (int step = 0; step < kStepsPerBlock; ++step) offsets.values[step] = Format::offset(step);
    return offsets;
  }
  float values[kStepsPerBlock];
};

struct InputSums {
  float x;
  float offset_x;
};

// The sums over `count` values, a multiple of eight, of which the first is input `first`, a multiple of eight.
inline InputSums sums_of(const float* x, int64_t first, int64_t count, const Offsets& offsets) {
  float plain[kStepInputs] = {}, weighted[kStepInputs] = {};
  for (int64_t i = 0; i < count; i += kStepInputs) {
    const float offset = offsets.values[(first + i) / kStepInputs % kStepsPerBlock];
    for (int k = 0; k < kStepInputs; ++k) {
      plain[k] += x[i + k];
      weighted[k] += offset * x[i + k];
    }
  }
  const auto total = [](const float* partial) {
    return ((partial[0] + partial[4]) + (partial[1] + partial[5])) +
           ((partial[2] + partial[6]) + (partial[3] + partial[7]));
  };
  return {total(plain), total(weighted)};
}

template <class Products>
class Inputs {
  using Input = typename Products::Input;

 public:
  // offsets: of a format that needs the sums, else null.
  Inputs(const LinearArguments& arguments, const Segments& segments, const Offsets* offsets, bool with_sparse)
      : arguments_(arguments),
        segments_(segments),
        in_padded_(segments.in_padded()),
        in_place_(sizeof(Input) == sizeof(uint16_t) && in_padded_ == arguments.weight.in_features),
        rows_(in_place_ ? 0 : arguments.tokens * in_padded_),
        offsets_(offsets),
        sums_(offsets != nullptr ? arguments.tokens * segments.count() : 0),
        sparse_(with_sparse ? arguments.tokens : 0, in_padded_) {}

  // Every thread of the team calls this; then they wait for each other.
  void prepare(const Team& team) {
    const auto [begin, end] = team.share(arguments_.tokens);
    for (int64_t token = begin; token < end; ++token) prepare_token(token);
    sparse_.store_zeros(team);
    team.wait_for_all();
  }

  const Input* row(int64_t token) const {
    return (in_place_ ? static_cast<const Input*>(arguments_.x) : rows_.data()) + token * in_padded_;
  }
  int64_t row_stride() const { return in_padded_; }
  const InputSums* sums(int64_t token) const { return sums_.data() + token * segments_.count(); }
  const SparseInputs& sparse() const { return sparse_; }

 private:
  void prepare_token(int64_t token) {
    const int64_t in_features = arguments_.weight.in_features;
    alignas(64) float x[kStretchInputs];
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment segment = segments_[index];
      const int64_t length = segment.end - segment.begin;
      const int64_t inside = smaller(length, in_features - segment.begin);
      load_floats(arguments_.x, arguments_.x_dtype, token * in_features + segment.begin, inside, x);
      for (int64_t i = inside; i < length; ++i) x[i] = 0;
      if (offsets_ != nullptr) {
        sums_.data()[token * segments_.count() + index] = sums_of(x, segment.begin, length, *offsets_);
      }
      if (!in_place_) Products::arrange(x, length, rows_.data() + token * in_padded_ + segment.begin);
      if (sparse_.blocks() > 0) sparse_.store(token, segment.begin, length, x);
    }
  }

  const LinearArguments& arguments_;
  const Segments& segments_;
  int64_t in_padded_;
  bool in_place_;
  Buffer<Input> rows_;
  const Offsets* offsets_;
  Buffer<InputSums> sums_;
  SparseInputs sparse_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
