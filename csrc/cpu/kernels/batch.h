// y = x @ (D + S).T + bias for a batch of tokens, for any format: weights are decoded in registers, one row per lane,
// and used at once for all tokens, each of which has one register of sums. More tokens than there are registers come in
// several passes of about the same size. There is a kernel for every number of columns: of tokens, or one more, that is
// zero, where compiling kernels for odd numbers as well would take more time than they save.
#pragma once

#include "arguments.h"
#include "kernels/inputs.h"
#include "kernels/outputs.h"
#include "kernels/panel.h"
#include "kernels/row_lanes.h"
#include "kernels/segments.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

// The columns of a pass of so many tokens.
constexpr int pass_columns(int64_t tokens) { return static_cast<int>(tokens <= 6 ? tokens : (tokens + 1) / 2 * 2); }

// x of one pass, the tokens side by side, [input][columns] (fp32) or [pair of inputs][columns] (bf16), and its sums
// over the segments, [segment][columns]. In front of x of a pass is a row of zeros, for the sparse part.
template <class Products>
class BatchInputs {
 public:
  using Input = typename Products::PairInput;

  BatchInputs(const LinearArguments& arguments, const Segments& segments, bool with_sums)
      : arguments_(arguments),
        segments_(segments),
        passes_((arguments.tokens + Products::kPassTokens - 1) / Products::kPassTokens),
        most_columns_(pass_columns((arguments.tokens + passes_ - 1) / passes_)),
        rows_(1 + segments.in_padded() / kRowInputs),
        x_(passes_ * most_columns_ * rows_ + kMostColumns),
        sums_(with_sums ? passes_ * most_columns_ * segments.count() : 0) {}

  // Every thread of the team calls this; then they wait for each other.
  void prepare(const Team& team) {
    const auto [begin, end] = team.share(segments_.count());
    for (int64_t pass = 0; pass < passes_; ++pass) {
      if (team.thread == 0) std::memset(row(pass, -1), 0, columns(pass) * sizeof(Input));
      for (int64_t index = begin; index < end; ++index) {
        for (int column = 0; column < columns(pass); ++column) prepare_segment(pass, column, index);
      }
    }
    team.wait_for_all();
  }

  int64_t passes() const { return passes_; }
  int64_t first_token(int64_t pass) const { return arguments_.tokens * pass / passes_; }
  int64_t tokens(int64_t pass) const { return first_token(pass + 1) - first_token(pass); }
  int columns(int64_t pass) const { return pass_columns(tokens(pass)); }
  const Input* x(int64_t pass) const { return row(pass, 0); }
  const float* sums(int64_t pass) const { return sums_.data() + pass * most_columns_ * segments_.count(); }

 private:
  static constexpr int64_t kRowInputs = 2 / Products::kRegisters;  // in an element

  Input* row(int64_t pass, int64_t index) const {
    return x_.data() + pass * most_columns_ * rows_ + (1 + index) * columns(pass);
  }

  void prepare_segment(int64_t pass, int column, int64_t index) {
    const Segment& segment = segments_[index];
    const int64_t in_features = arguments_.weight.in_features, length = segment.end - segment.begin;
    const int64_t inside = smaller(length, in_features - segment.begin), token = first_token(pass) + column;
    alignas(64) float x[kStretchInputs] = {};
    if (column < tokens(pass)) {
      load_floats(arguments_.x, arguments_.x_dtype, token * in_features + segment.begin, inside, x);
    }
    Input* place = row(pass, segment.begin / kRowInputs) + column;
    const int stride = columns(pass);
    for (int64_t i = 0; i < length; i += kRowInputs, place += stride) *place = Products::pair_input(x + i);
    if (sums_.data() != nullptr) {
      sums_.data()[pass * most_columns_ * segments_.count() + index * stride + column] = sum_of(x, length);
    }
  }

  // `count` is a multiple of eight.
  static float sum_of(const float* x, int64_t count) {
    float sums[kStepInputs] = {};
    for (int64_t i = 0; i < count; i += kStepInputs) {
      for (int k = 0; k < kStepInputs; ++k) sums[k] += x[i + k];
    }
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
  }

  const LinearArguments& arguments_;
  const Segments& segments_;
  int64_t passes_;
  int64_t most_columns_;
  int64_t rows_;  // the row of zeros included
  Buffer<Input> x_;
  Buffer<float> sums_;
};

template <class Format>
class BatchLinear {
  using Products = typename Format::Products;
  using Rows = typename Format::template Rows<Format>;
  using Layout = Block<Format::kBits>;

 public:
  explicit BatchLinear(const LinearArguments& arguments)
      : arguments_(arguments),
        weight_(arguments.weight),
        segments_(weight_),
        inputs_(arguments, segments_, Format::kCentered) {}

  void run() {
    for_each_tile(arguments_, inputs_, [this](int64_t tile) { run_tile(tile); });
  }

 private:
  void run_tile(int64_t tile) const {
    Format format(weight_, segments_.groups(), tile);
    alignas(64) float y[Products::kPassTokens * kTileRows];  // [column][row]
    for (int64_t pass = 0; pass < inputs_.passes(); ++pass) {
      const int64_t first = inputs_.first_token(pass), tokens = inputs_.tokens(pass);
      unroll<2, Products::kPassTokens + 1>([&](auto columns) {
        if constexpr (pass_columns(columns.value) == columns.value) {
          if (columns.value != inputs_.columns(pass)) return;
          for (int row = 0; row < kTileRows; row += kLaneRows) multiply<columns.value>(format, tile, pass, row, y);
        }
      });
      add_sparse_sums(weight_, tile, inputs_.x(pass), inputs_.columns(pass), tokens, y, kTileRows);
      for (int64_t token = 0; token < tokens; ++token) {
        write_outputs(arguments_, tile, first + token, y + token * kTileRows);
      }
    }
  }

  // y[column][first_row ..< first_row + kLaneRows] = the dense sums.
  template <int kColumns>
  void multiply(Format& format, int64_t tile, int64_t pass, int first_row, float* y) const {
    constexpr int kRegisters = kPairs * Products::kRegisters;  // of a step
    // Chains of additions that do not wait for each other.
    constexpr int kChains = kColumns <= 2 ? 4 : kColumns <= 5 ? 2 : 1;
    const uint8_t* codes = tile_codes<Format::kBits>(weight_, tile);
    const auto* x = inputs_.x(pass);
    Rows rows(format, first_row);
    Floats totals[kColumns];
    for (Floats& total : totals) total = Isa::splat(0.0f);
    for (int64_t index = 0; index < segments_.count(); ++index) {
      const Segment& segment = segments_[index];
      format.select_group(segment.group);
      Floats sums[kColumns][kChains];
#pragma GCC unroll 16
      for (int column = 0; column < kColumns; ++column) {
#pragma GCC unroll 4
        for (Floats& sum : sums[column]) sum = Isa::splat(0.0f);
        if constexpr (Format::kCentered) {
          const Floats zero = Isa::add(Isa::load_lanes(format.zeros() + first_row), Isa::splat(Rows::offset()));
          sums[column][0] = Isa::multiply(zero, Isa::splat(-inputs_.sums(pass)[index * kColumns + column]));
        }
      }
      for (int64_t step = segment.begin / kStepInputs; step < segment.end / kStepInputs;) {
        const int64_t block = step / kStepsPerBlock;
        const int plane = static_cast<int>(step % kStepsPerBlock / Layout::kStepsPerPlane);
        const int64_t first_step = block * kStepsPerBlock + plane * Layout::kStepsPerPlane;
        const int64_t end_step = smaller(segment.end / kStepInputs, first_step + Layout::kStepsPerPlane);
        prefetch_plane(codes + block * Layout::kBytes, plane, first_row);
        rows.load(codes + block * Layout::kBytes, plane, first_row);
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
          typename Rows::Weights weights[Rows::kSteps][kPairs];
          rows.next(weights);
#pragma GCC unroll 2
          for (int i = 0; i < Rows::kSteps; ++i) {
            const int64_t this_step = first_step + turn + i * Rows::kDistance;
            if (this_step < step || this_step >= end_step) continue;
            const auto* inputs = x + this_step * kRegisters * kColumns;
#pragma GCC unroll 8
            for (int k = 0; k < kRegisters; ++k) {
              const auto part = weights[i][k / Products::kRegisters].parts[k % Products::kRegisters];
#pragma GCC unroll 16
              for (int column = 0; column < kColumns; ++column) {
                Floats& sum = sums[column][k % kChains];
                sum = Products::multiply_add(part, Products::splat(inputs + k * kColumns + column), sum);
              }
            }
          }
        }
        step = end_step;
      }
      const Floats scale = Isa::load_lanes(format.scales() + first_row);
#pragma GCC unroll 16
      for (int column = 0; column < kColumns; ++column) {
        Floats sum = sums[column][0];
#pragma GCC unroll 4
        for (int chain = 1; chain < kChains; ++chain) sum = Isa::add(sum, sums[column][chain]);
        totals[column] = Isa::multiply_add(sum, scale, totals[column]);
      }
    }
    for (int column = 0; column < kColumns; ++column) {
      Isa::store_lanes(totals[column], y + column * kTileRows + first_row);
    }
  }

  // Of the rows in use.
  REQUANT_INLINE static void prefetch_plane(const uint8_t* block, int plane, int first_row) {
    constexpr int kBytes = Layout::kBytes / Layout::kPlanes * kLaneRows / kTileRows;
    const uint8_t* place = block + plane * kPlaneBytes + first_row * kUnitBytes + kPrefetchBytes;
    for (int byte = 0; byte < kBytes; byte += 64) Isa::prefetch(place + byte);
  }

  const LinearArguments& arguments_;
  const Weight& weight_;
  Segments segments_;
  BatchInputs<Products> inputs_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
