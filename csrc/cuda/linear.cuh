// y = x @ (D + S).T + bias for up to 32 tokens a CTA: one kernel for every format and phase.
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
// One product costs the same for 1 to 8 tokens, which is why a single kernel serves decode and batch: at one token the
// matrix units have seven columns to spare, and the instructions they save are those that decoding needs.
//
// A warp walks along the *spans* (128 inputs) of one tile of rows, taking turns with the CTA's other warps; codes of
// the next spans are on their way in registers meanwhile. x comes in *chunks* through two stages of shared memory.
// Sums of small exact integers are kept per group and scaled when the group ends.
//
//   inputs   | span | span | span | span | span | ...        a chunk is a power of two of spans for every warp
//   warp        0      1      2      3      0
//
// Shared memory:  | x stage 0 [tokens][chunk + 8] | x stage 1 | sparse sums [warps][16][32], if there are entries |
// and, over x, at the end: | partial sums [warps][16][tokens] |
#pragma once

#include <type_traits>

#include "cuda/parameters.cuh"
#include "cuda/primitives.cuh"
#include "cuda/sparse.cuh"
#include "cuda/write_sums.cuh"

namespace requant::cuda {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Rows of x in shared memory are this much longer than a chunk, so that eight rows lie in different banks.
constexpr int kRowPadding = 8;

// x [tokens][chunk_inputs] from input `first` into a stage; inputs that do not exist are zeros.
template <class Number>
__device__ __forceinline__ void copy_chunk(const LinearParameters& p, const uint16_t* x, uint16_t* stage, int first,
                                           int tokens) {
  const int in_features = static_cast<int>(p.weight.in_features);
  constexpr int kPiece = 8;
  for (int token = 0; token < tokens; ++token) {
    const uint16_t* row = x + static_cast<int64_t>(token) * in_features + first;
    uint16_t* target = stage + token * (p.chunk_inputs + kRowPadding);
    for (int input = threadIdx.x * kPiece; input < p.chunk_inputs; input += kThreads * kPiece) {
      const int present = min(max(in_features - first - input, 0), kPiece);
      if (p.aligned_x) {
        copy_16_bytes(target + input, present > 0 ? row + input : x, present * 2);
      } else {
        for (int element = 0; element < kPiece; ++element) {
          target[input + element] = element < present ? __ldg(row + input + element) : uint16_t{0};
        }
      }
    }
  }
  commit_copies();
}

// Scale and zero of rows g and g + 8, as raw bits until they are needed.
struct GroupScales {
  uint32_t scale[2];
  uint32_t zero[2];

  __device__ __forceinline__ void load(const LinearParameters& p, int64_t tile, int first_input, int lane) {
    const int group = min(first_input / p.inputs_per_group, p.groups - 1);
    const int64_t index = (tile * p.groups + group) * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scale[half] = load_number(p.weight.scale, p.weight.scale_dtype, index + 8 * half);
      if (p.weight.zero != nullptr) zero[half] = load_number(p.weight.zero, p.weight.scale_dtype, index + 8 * half);
    }
  }
};

template <class Weights, int kTokenTiles>
struct Accumulators {
  float products[kTokenTiles][4];  // of the group so far
  float inputs[kTokenTiles][4];    // sums of x over the group so far: what `zero` is multiplied with
  float totals[kTokenTiles][4];

  __device__ __forceinline__ void clear_group() {
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int element = 0; element < 4; ++element) products[tile][element] = inputs[tile][element] = 0;
    }
  }

  __device__ __forceinline__ void clear() {
    clear_group();
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int element = 0; element < 4; ++element) totals[tile][element] = 0;
    }
  }

  // totals += scale * (products - (zero - middle) * inputs). Elements 0 and 1 belong to row g, 2 and 3 to row g + 8.
  __device__ __forceinline__ void end_group(const LinearParameters& p, const GroupScales& scales) {
    const Dtype dtype = p.weight.scale_dtype;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = number_of(scales.scale[half], dtype);
      const float zero = p.weight.zero == nullptr ? 0 : number_of(scales.zero[half], dtype) - Weights::kMiddle;
#pragma unroll
      for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
        for (int element = 2 * half; element < 2 * half + 2; ++element) {
          const float sum = fmaf(-zero, inputs[tile][element], products[tile][element]);
          totals[tile][element] = fmaf(scale, sum, totals[tile][element]);
        }
      }
    }
    clear_group();
  }
};

template <class Weights, int kTokenTiles>
__global__ void __launch_bounds__(kThreads) linear_kernel(const LinearParameters p) {
  using Number = typename Weights::Number;
  using Type = Numbers<Number>;
  using Shape = CtaShape<kTokenTiles>;
  using Codes = typename Weights::Codes;
  // Spans on their way: about 16 registers of codes.
  constexpr int kDepth = Codes::kRegisters >= 16 ? 1 : 16 / Codes::kRegisters;

  extern __shared__ __align__(16) uint16_t shared[];
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int row_warp = warp / Shape::kInputWarps, input_warp = warp % Shape::kInputWarps;
  const int first_token = blockIdx.x * Shape::kTokens;
  const int tokens = min(p.tokens - first_token, Shape::kTokens);
  const int64_t tile = static_cast<int64_t>(blockIdx.y) * Shape::kRowWarps + row_warp;
  const bool has_rows = tile < p.tiles;
  const int begin = blockIdx.z * p.split_inputs;
  const int split_inputs = min(p.split_inputs, p.blocks * 64 - begin);
  constexpr int kStride = kSpanInputs * Shape::kInputWarps;
  const int spans = (split_inputs + kStride - 1) / kStride;  // of this warp, some of which may lie beyond the end

  const uint16_t* x = static_cast<const uint16_t*>(p.x) + first_token * p.weight.in_features;
  const int row_length = p.chunk_inputs + kRowPadding;
  const int stage_length = min(p.tokens, Shape::kTokens) * row_length;
  float* const sparse_sums = reinterpret_cast<float*>(shared + 2 * stage_length) + warp * kSparseSums;
  const bool sparse = p.weight.sparse.offsets != nullptr;
  const bool scaled = Weights::scaled_by_group(p);

  const uint32_t* const tile_codes = p.weight.codes + (has_rows ? tile : 0) * p.tile_words;
  const auto first_input = [&](int span) { return begin + span * kStride + input_warp * kSpanInputs; };
  Codes codes[kDepth];
  GroupScales scales[kDepth];
  const auto load = [&](int slot, int span) {
    const int input = first_input(span);
    const bool present = has_rows && span < spans && input < p.blocks * 64;
    codes[slot].load(tile_codes, input / 64, present ? p.blocks : 0, lane);
    if (scaled && !p.narrow_groups && present) scales[slot].load(p, tile, input, lane);
  };
#pragma unroll
  for (int slot = 0; slot < kDepth; ++slot) load(slot, slot);
  copy_chunk<Number>(p, x, shared, begin, tokens);
  const Weights weights(p, has_rows ? tile : 0, lane);
  if (sparse) clear_sparse_sums(sparse_sums, lane);

  // Where this lane's row of operand B begins in a stage, for load_matrices: with one tile, four 8-input steps of it;
  // with more, two steps of two tiles.
  constexpr int kPairs = kTokenTiles == 1 ? 1 : kTokenTiles / 2;
  uint32_t rows[kPairs];
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int matrix = lane / 8;
    const int token = lane % 8 + (kTokenTiles == 1 ? 0 : 16 * pair + matrix / 2 * 8);
    const int input = (kTokenTiles == 1 ? matrix : matrix % 2) * 8;
    rows[pair] = shared_address(shared + min(token, tokens - 1) * row_length + input);
  }

  Accumulators<Weights, kTokenTiles> sums;
  sums.clear();
  const int spans_per_chunk = 1 << p.spans_per_chunk_log2;
  for (int turn = 0; turn < spans; turn += kDepth) {
#pragma unroll
    for (int slot = 0; slot < kDepth; ++slot) {
      const int span = turn + slot;
      if (span >= spans) break;
      const int chunk = span >> p.spans_per_chunk_log2, place = span & (spans_per_chunk - 1);
      if (place == 0) {
        const int chunk_begin = begin + chunk * p.chunk_inputs;
        __syncthreads();  // all have left the stage that is filled next
        if (span + spans_per_chunk < spans) {
          copy_chunk<Number>(p, x, shared + (chunk + 1) % 2 * stage_length, chunk_begin + p.chunk_inputs, tokens);
          wait_for_copies<1>();
        } else {
          wait_for_copies<0>();
        }
        __syncthreads();
        if (sparse && has_rows) {
          const uint16_t* stage = shared + chunk % 2 * stage_length;
          add_sparse(p, sparse_sums, tile, chunk_begin, min(p.chunk_inputs, begin + split_inputs - chunk_begin),
                     input_warp, Shape::kInputWarps, tokens, lane, [&](int token, int position) {
                       return Type::to_float(stage[token * row_length + position]);
                     });
        }
      }
      if (has_rows && first_input(span) < p.blocks * 64) {
        const uint32_t offset_bytes =
            2 * (chunk % 2 * stage_length + place * kStride + input_warp * kSpanInputs);
        const auto quarter = [&](auto index) {  // 32 inputs: the smallest group
          constexpr int kQuarter = decltype(index)::value;
          uint32_t b[kPairs][2][4];
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
            for (int step = 0; step < (kTokenTiles == 1 ? 1 : 2); ++step) {
              load_matrices(b[pair][step], rows[pair] + offset_bytes + 64 * kQuarter + 32 * step);
            }
          }
          const auto step = [&](auto step_index) {
            constexpr int kStep = decltype(step_index)::value;
            uint32_t a[4];
            weights.template fragment<2 * kQuarter + kStep>(codes[slot], a);
#pragma unroll
            for (int token_tile = 0; token_tile < kTokenTiles; ++token_tile) {
              const uint32_t(&registers)[4] = kTokenTiles == 1 ? b[0][0] : b[token_tile / 2][kStep];
              const int first = kTokenTiles == 1 ? 2 * kStep : token_tile % 2 * 2;
              Type::multiply_tile(sums.products[token_tile], a, registers[first], registers[first + 1]);
              if (Weights::kCanHaveZero && p.weight.zero != nullptr) {
                constexpr uint32_t kOnes[4] = {Type::kOnes, Type::kOnes, Type::kOnes, Type::kOnes};
                Type::multiply_tile(sums.inputs[token_tile], kOnes, registers[first], registers[first + 1]);
              }
            }
          };
          step(Constant<0>{});
          step(Constant<1>{});
          if (scaled && p.narrow_groups) {
            scales[slot].load(p, tile, first_input(span) + 32 * kQuarter, lane);
            sums.end_group(p, scales[slot]);
          }
        };
        quarter(Constant<0>{});
        quarter(Constant<1>{});
        quarter(Constant<2>{});
        quarter(Constant<3>{});
        if (scaled && !p.narrow_groups) sums.end_group(p, scales[slot]);
      }
      load(slot, span + kDepth);
    }
  }
  write_sums<Weights, kTokenTiles>(p, reinterpret_cast<float*>(shared), sparse_sums, [&](int token_tile, int element) {
    return scaled ? sums.totals[token_tile][element]
                  : sums.products[token_tile][element] * weights.row_scale(element / 2);
  });
}

}  // namespace requant::cuda
