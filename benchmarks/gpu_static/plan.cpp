// The launcher's plan for a call, for Python.
#include "cuda/plan.h"

#include "cuda/parameters.cuh"

extern "C" __attribute__((visibility("default"))) void plan_linear(int format, int bits, int64_t out_features,
                                                                   int64_t in_features, bool sparse, int64_t tokens,
                                                                   int multiprocessors, int capability,
                                                                   int64_t* figures) {
  requant::cuda::Weight weight{};
  weight.format = static_cast<requant::cuda::Format>(format);
  weight.bits = bits;
  weight.out_features = out_features;
  weight.in_features = in_features;
  const uint32_t present = 0;
  if (sparse) weight.sparse.offsets = &present;
  const requant::cuda::Plan plan = make_plan(weight, tokens, {nullptr, multiprocessors, capability});
  *figures++ = plan.token_tiles;
  *figures++ = plan.row_warps;
  *figures++ = plan.token_groups;
  *figures++ = plan.row_groups;
  *figures++ = plan.splits;
  *figures++ = plan.split_inputs;
  *figures++ = plan.chunk_inputs;
  *figures++ = static_cast<int64_t>(plan.shared_bytes);
  *figures++ = requant::cuda::ring_spans(bits) - 1;
}
