// y = x @ (D + S).T + bias for up to 32 tokens a CTA: one kernel for every format, for decode and for small batches.
//
// Weights are operand A of mma.m16n8k16, decoded in registers; x is operand B, from shared memory:
//
//                        8 tokens of x (B)
//                      +-------+
//             16 inputs|       |
//                      +-------+
//       16 inputs
//      +--------+      +-------+
//   16 |  W (A) |      |   y   |   fp32, one such fragment for every 8 tokens
// rows +--------+      +-------+
//
// One product costs the same for 1 to 8 tokens: at one token the matrix units have seven columns to spare, and the
// instructions they save are those that decoding needs.
//
// A warp walks along the *spans* (128 inputs) of one tile of rows, taking turns with those of the CTA's warps that
// share it. The packed bytes of a span are contiguous in every format; copies of the next ones are always on their way
// into the warp's own ring in shared memory, so that warps wait for each other only where x changes: x comes in
// *chunks*, of which shared memory has two.
//
//   inputs   | span | span | span | span | span | ...        a chunk is a power of two of spans for every warp
//   warp        0      1      2      3      0                 if four share a tile
//
//   shared memory   | rings [warps][spans] | x [2 chunks][tokens][inputs + 8] | sparse sums [warps][16][32], if any |
//                   | sums [warps][tokens][20]: over the same place, at the end                                       |
#pragma once

#include <type_traits>

#include "cuda/accumulators.cuh"
#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/span_ring.cuh"
#include "cuda/sparse.cuh"
#include "cuda/write_sums.cuh"

namespace requant::cuda {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Starts copying x [tokens][chunk_inputs] from input `first`; inputs that do not exist become zeros.
__device__ __forceinline__ void copy_inputs(const LinearParameters& p, const uint16_t* x, uint16_t* chunk, int first,
                                            int tokens) {
  constexpr int kPiece = 8;
  const int in_features = static_cast<int>(p.weight.in_features);
  for (int token = 0; token < tokens; ++token) {
    const uint16_t* row = x + static_cast<int64_t>(token) * in_features + first;
    uint16_t* target = chunk + token * (p.chunk_inputs + kRowPadding);
    for (int input = threadIdx.x * kPiece; input < p.chunk_inputs; input += kThreads * kPiece) {
      const int present = min(max(in_features - first - input, 0), kPiece);
      if (p.aligned_x) {
        copy_16_bytes(shared_address(target + input), row + input, present * 2);
      } else {
#pragma unroll 1
        for (int element = 0; element < kPiece; ++element) {
          target[input + element] = element < present ? __ldg(row + input + element) : uint16_t{0};
        }
      }
    }
  }
}

template <class Weights, class Shape>
__global__ void __launch_bounds__(kThreads, Shape::kCtasPerMultiprocessor) linear_kernel(const LinearParameters p) {
  using Number = typename Weights::Number;
  using Ring = SpanRing<Weights::kBits, Shape::kStride>;
  constexpr int kTokenTiles = Shape::kTokenTiles;

  extern __shared__ __align__(16) uint8_t shared[];
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int row_warp = warp / Shape::kInputWarps, input_warp = warp % Shape::kInputWarps;
  const int first_token = blockIdx.x * Shape::kTokens;
  const int tokens = min(p.tokens - first_token, Shape::kTokens);
  // A warp without rows of its own repeats the last ones, and does not write.
  const int64_t tile = min(static_cast<int>(blockIdx.y) * Shape::kRowWarps + row_warp, p.tiles - 1);
  const int begin = blockIdx.z * p.split_inputs;
  const int end = min(begin + p.split_inputs, p.blocks * kBlockInputs);

  const uint16_t* x = static_cast<const uint16_t*>(p.x) + first_token * p.weight.in_features;
  const int row_length = p.chunk_inputs + kRowPadding;
  uint16_t* const chunks = reinterpret_cast<uint16_t*>(shared + kWarps * Ring::kBytes);
  const int sparse_byte = kWarps * Ring::kBytes + 2 * p.chunk_length * static_cast<int>(sizeof(uint16_t));

  copy_inputs(p, x, chunks, begin, tokens);
  commit_copies();
  constexpr int kBytesPerInput = 2 * Weights::kBits;  // of 16 rows
  Ring ring(shared + warp * Ring::kBytes, reinterpret_cast<const uint8_t*>(p.weight.codes) + tile * p.tile_bytes,
            begin + input_warp * kSpanInputs, min(end * kBytesPerInput, p.tile_bytes), lane, Weights::place(16 * lane));
  Weights weights(p, tile, lane);
  const LaneScales<Weights> lane_scales(p, tile, lane);
  const bool sparse = p.weight.sparse.offsets != nullptr;
  SparsePart<Shape::kWholeSlices> sparse_part;
  if (sparse) {
    const int warp_sums = sparse_byte + warp * kSparseSums * static_cast<int>(sizeof(float));
    sparse_part.template start<Shape::kInputWarps>(p, shared, warp_sums, tile, begin, end, input_warp, tokens, lane);
  }

  // Where this lane's row of operand B begins: with one tile of tokens `load_matrices` takes four steps of 8 inputs,
  // with more of them two steps of two tiles.
  constexpr int kPairs = kTokenTiles == 1 ? 1 : kTokenTiles / 2;
  uint32_t rows[kPairs];
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int matrix = lane / 8;
    const int token = lane % 8 + (kTokenTiles == 1 ? 0 : 16 * pair + matrix / 2 * 8);
    const int input = (kTokenTiles == 1 ? matrix : matrix % 2) * 8;
    rows[pair] = keep(static_cast<int>(shared_address(chunks + min(token, tokens - 1) * row_length + input)));
  }

  const int ring_byte = keep(warp * Ring::kBytes + lane * Weights::kLaneBytes);
  Accumulators<Weights, kTokenTiles> sums;
  sums.clear();
  int stage = 0;
#pragma unroll 1
  for (int chunk = begin; chunk < end; chunk += p.chunk_inputs, stage ^= 1) {
    // All but the latest span have arrived, this chunk among them, and all warps have left the one before.
    wait_for_copies<1>();
    __syncthreads();
    const int next = chunk + p.chunk_inputs;
    if (next < end) copy_inputs(p, x, chunks + (stage ^ 1) * p.chunk_length, next, tokens);
    commit_copies();
    if (sparse) {
      const uint16_t* present = chunks + stage * p.chunk_length;
      sparse_part.add(p, shared, chunk, end, [&](int token, int input) {
        if constexpr (Weights::kRotated) {
          const int64_t index = (first_token + token) * p.sparse_in_features + chunk + input;
          return number_of(load_number(p.sparse_x, p.sparse_x_dtype, index), p.sparse_x_dtype);
        } else {
          return Numbers<Number>::to_float(present[token * row_length + input]);
        }
      });
    }
    const int x_bytes = 2 * (stage * p.chunk_length - chunk);  // from `rows` to where input 0 would be
#pragma unroll 1
    for (int input = chunk + input_warp * kSpanInputs; input < min(next, end); input += Shape::kStride) {
      wait_for_copies<Ring::kAhead - 1>();
      __syncwarp();
      const uint8_t* span = shared + ring_byte + ring.advance(input);
      GroupScales<Weights> scales;
      if constexpr (Weights::kGroups == Groups::kSpans) scales.load(p, lane_scales, static_cast<uint32_t>(input));
      const auto quarter = [&](auto quarter_index) {  // 32 inputs: the smallest group
        constexpr int kQuarter = decltype(quarter_index)::value;
        if constexpr (Weights::kGroups == Groups::kAny)
          scales.load(p, lane_scales, static_cast<uint32_t>(input) + 32 * kQuarter);
        uint32_t b[kPairs][2][4];
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
          for (int step = 0; step < (kTokenTiles == 1 ? 1 : 2); ++step) {
            load_matrices(b[pair][step], rows[pair] + x_bytes + 2 * input + 64 * kQuarter + 32 * step);
          }
        }
        const auto multiply = [&](auto step_index) {  // 16 inputs: one product
          constexpr int kStep = decltype(step_index)::value;
          uint32_t a[4];
          weights.template fragment<2 * kQuarter + kStep>(span, a);
#pragma unroll
          for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
            const uint32_t (&matrices)[4] = kTokenTiles == 1 ? b[0][0] : b[token_tile / 2][kStep];
            const int first = kTokenTiles == 1 ? 2 * kStep : token_tile % 2 * 2;
            sums.add(token_tile, a, matrices[first], matrices[first + 1]);
          }
        };
        multiply(Constant<0>{});
        multiply(Constant<1>{});
        if constexpr (Weights::kGroups == Groups::kAny) sums.end_group(scales, p.weight.scale_dtype);
      };
      quarter(Constant<0>{});
      quarter(Constant<1>{});
      quarter(Constant<2>{});
      quarter(Constant<3>{});
      if constexpr (Weights::kGroups == Groups::kSpans) sums.end_group(scales, p.weight.scale_dtype);
    }
  }
  wait_for_copies<0>();
  if (sparse) sparse_part.finish(p, shared, lane);
  write_sums<Weights, Shape>(
      p, reinterpret_cast<float*>(shared), reinterpret_cast<const float*>(shared + sparse_byte),
      [&](int token_tile, int element) { return sums.total(token_tile, element, weights.row_scale(element / 2)); });
}

}  // namespace requant::cuda
