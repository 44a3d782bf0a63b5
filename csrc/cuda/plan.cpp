#include "cuda/plan.h"

#include <algorithm>
#include <iterator>

#include "cuda/launch.h"
#include "cuda/parameters.cuh"

namespace requant::cuda {
namespace {

constexpr int64_t kSplitGranularity = kWarps * kSpanInputs;

// CTAs that one multiprocessor should have to hide the latency of memory behind.
constexpr int64_t kCtasPerMultiprocessor = 4;
// Fewer inputs are not worth the partial sums of a split of their own.
constexpr int64_t kFewestSplitInputs = 1024;
// Both chunks of x: with the sparse sums they leave room for several CTAs, and for every device's default limit.
constexpr int64_t kInputBytes = 18 << 10;
constexpr int64_t kLargestChunk = 2048;  // a sparse entry tells 4096 inputs apart
constexpr int64_t kSparseSumsBytes = kWarps * 16 * 32 * 4;

// A shape, and which calls it is for: up to so many tokens, if its rows make so many CTAs for every multiprocessor.
struct ShapeChoice {
  int64_t tokens;
  int64_t ctas_per_multiprocessor;
  int token_tiles;
  int row_warps;
  int smallest_chunk;
};

template <class Shape>
constexpr ShapeChoice choose(int64_t tokens, int64_t ctas_per_multiprocessor) {
  return {tokens, ctas_per_multiprocessor, Shape::kTokenTiles, Shape::kRowWarps, Shape::kSmallestChunk};
}

// The first one that suits is taken. Twelve long CTAs for a multiprocessor: while the last ones run, at most one in
// twelve multiprocessors' time is idle, less than what is saved.
constexpr ShapeChoice kShapeChoices[] = {choose<CtaShape<1, 4>>(8, 12), choose<CtaShape<1, 1>>(8, 0),
                                         choose<CtaShape<2, 2>>(16, 0), choose<CtaShape<4, 4>>(INT64_MAX, 0)};

int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

Plan make_plan(const Weight& weight, int64_t tokens, const Device& device) {
  Plan plan{};
  const auto row_groups = [&](int row_warps) { return divide_up(weight.out_features, 16 * row_warps); };
  const ShapeChoice& shape =
      *std::find_if(std::begin(kShapeChoices), std::end(kShapeChoices), [&](const ShapeChoice& choice) {
        return tokens <= choice.tokens &&
               row_groups(choice.row_warps) >= choice.ctas_per_multiprocessor * device.multiprocessors;
      });
  plan.token_tiles = shape.token_tiles;
  plan.row_warps = shape.row_warps;
  const int64_t tile_tokens = std::min<int64_t>(tokens, 8 * plan.token_tiles);
  plan.token_groups = static_cast<int>(divide_up(tokens, 8 * plan.token_tiles));
  plan.row_groups = static_cast<int>(row_groups(shape.row_warps));

  const int64_t in_padded = divide_up(weight.in_features, 64) * 64;
  const int64_t wanted = divide_up(device.multiprocessors * kCtasPerMultiprocessor,
                                   static_cast<int64_t>(plan.token_groups) * plan.row_groups);
  const int64_t splits = std::clamp<int64_t>(wanted, 1, divide_up(in_padded, kFewestSplitInputs));
  const int64_t split_inputs = divide_up(divide_up(in_padded, splits), kSplitGranularity) * kSplitGranularity;
  plan.split_inputs = static_cast<int>(split_inputs);
  plan.splits = static_cast<int>(divide_up(in_padded, split_inputs));

  const auto stage_bytes = [&](int64_t chunk) { return 2 * tile_tokens * (chunk + 8) * 2; };
  int64_t chunk = shape.smallest_chunk;
  while (chunk < split_inputs && chunk < kLargestChunk && stage_bytes(2 * chunk) <= kInputBytes) chunk *= 2;
  plan.chunk_inputs = static_cast<int>(chunk);
  const int64_t sparse_bytes = weight.sparse.offsets == nullptr ? 0 : kSparseSumsBytes;
  const int64_t ring_bytes = kWarps * ring_spans(weight.bits) * 16 * kSpanInputs * weight.bits / 8;
  const int64_t sums_bytes = kWarps * 8 * plan.token_tiles * kSumsRowLength * 4;
  plan.shared_bytes = static_cast<size_t>(std::max(ring_bytes + stage_bytes(chunk) + sparse_bytes, sums_bytes));
  return plan;
}

size_t workspace_bytes(const Weight& weight, int64_t tokens, const Device& device) {
  if (weight.format == Format::kTrellis) return trellis_workspace_bytes(weight, tokens, device);
  const Plan plan = make_plan(weight, tokens, device);
  return plan.splits == 1 ? 0 : static_cast<size_t>(plan.splits * tokens * weight.out_features) * sizeof(float);
}

}  // namespace requant::cuda
