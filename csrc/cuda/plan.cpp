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

// Up to so many tokens, so many 8-token tiles.
struct TokenTiles {
  int64_t tokens;
  int tiles;
};
constexpr TokenTiles kTokenTiles[] = {{8, 1}, {16, 2}, {INT64_MAX, 4}};

int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

Plan make_plan(const Weight& weight, int64_t tokens, const Device& device) {
  Plan plan{};
  plan.token_tiles = std::find_if(std::begin(kTokenTiles), std::end(kTokenTiles), [&](const TokenTiles& candidate) {
                       return tokens <= candidate.tokens;
                     })->tiles;
  const int64_t tile_tokens = std::min<int64_t>(tokens, 8 * plan.token_tiles);
  plan.token_groups = static_cast<int>(divide_up(tokens, 8 * plan.token_tiles));
  plan.row_groups = static_cast<int>(divide_up(weight.out_features, 16 * plan.token_tiles));

  const int64_t in_padded = divide_up(weight.in_features, 64) * 64;
  const int64_t wanted = divide_up(device.multiprocessors * kCtasPerMultiprocessor,
                                   static_cast<int64_t>(plan.token_groups) * plan.row_groups);
  const int64_t splits = std::clamp<int64_t>(wanted, 1, divide_up(in_padded, kFewestSplitInputs));
  const int64_t split_inputs = divide_up(divide_up(in_padded, splits), kSplitGranularity) * kSplitGranularity;
  plan.split_inputs = static_cast<int>(split_inputs);
  plan.splits = static_cast<int>(divide_up(in_padded, split_inputs));

  const auto stage_bytes = [&](int64_t chunk) { return 2 * tile_tokens * (chunk + 8) * 2; };
  int64_t chunk = kSpanInputs * kWarps / plan.token_tiles;
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
