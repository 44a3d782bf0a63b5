// y = x @ (D + S).T + bias for many tokens, compiled once per instruction set; knows no format.
//
// A few tiles of rows are decoded at a time, scaled and with their sparse part in place, into panels that stay in the
// second-level cache; all tokens are multiplied with them before the next tiles are decoded. Every thread has tiles of
// its own, so each weight is decoded once, and the result does not depend on the number of threads.
#include REQUANT_ISA_HEADER

#include "kernels.h"
#include "kernels/inputs.h"
#include "kernels/outputs.h"
#include "kernels/panel.h"
#include "kernels/parallel.h"
#include "kernels/tiles.h"
#ifdef __AMX_BF16__
#include "kernels/matrix_panel.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

constexpr int64_t kPanelBytes = 384 << 10;  // of one thread
constexpr int64_t kMaxTilesTogether = 8;

// How many tiles a thread decodes at a time.
int64_t tiles_together(const LinearArguments& arguments, int64_t in_padded, int64_t element_bytes) {
  const int64_t fitting = kPanelBytes / (in_padded * kTileRows * element_bytes);
  const int64_t share = (tile_count(arguments.weight) + arguments.threads - 1) / arguments.threads;
  return smaller(smaller(kMaxTilesTogether, share), fitting < 2 ? int64_t{2} : fitting);
}

// On vector registers.
template <class Products>
void vector_prefill(const LinearArguments& arguments, DecodePanels decode) {
  using Input = typename Products::Input;
  const Segments segments(arguments.weight);
  Inputs<Products> inputs(arguments, segments, nullptr, false);
  const int64_t in_padded = segments.in_padded();
  const int64_t together = tiles_together(arguments, in_padded, sizeof(Input));
  const PanelKind kind = sizeof(Input) == sizeof(float) ? PanelKind::kFloat32 : PanelKind::kBFloat16;
  const int64_t blocks = (arguments.tokens + Isa::kPanelTokens - 1) / Isa::kPanelTokens;

  parallel(arguments.threads, [&](const Team& team) {
    inputs.prepare(team);
    const Buffer<Input> panels(together * in_padded * kTileRows);
    const auto [begin, end] = team.share(tile_count(arguments.weight));
    for (int64_t first_tile = begin; first_tile < end; first_tile += together) {
      const int64_t end_tile = smaller(first_tile + together, end);
      decode({arguments.weight, first_tile, end_tile, kind, panels.data()});
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t token = arguments.tokens * block / blocks, end_token = arguments.tokens * (block + 1) / blocks;
        for (int64_t tile = first_tile; tile < end_tile; ++tile) {
          Floats sums[Isa::kPanelTokens * Isa::kSlices];
          const Input* panel = panels.data() + (tile - first_tile) * in_padded * kTileRows;
          multiply_panel<Products>(
              {panel, in_padded / kStepInputs * Products::kRegisters, inputs.row(token), inputs.row_stride()},
              static_cast<int>(end_token - token), sums);
          for (int64_t i = 0; i < end_token - token; ++i) {
            alignas(64) float y[kTileRows];
            Isa::sum_rows(sums + i * Isa::kSlices, y);
            write_outputs(arguments, tile, token + i, y);
          }
        }
      }
    }
  });
}

#ifdef __AMX_BF16__
// On matrix tiles. Inputs are worked on in stretches that stay in the first-level cache for all tiles of a group.
void matrix_prefill(const LinearArguments& arguments, DecodePanels decode) {
  constexpr int64_t kStretchTiles = 16, kTogether = MatrixTiles::kTogether;
  const int64_t in_padded = Segments(arguments.weight).in_padded(), input_tiles = in_padded / MatrixTiles::kInputs;
  MatrixInputs inputs(arguments, in_padded);
  const int64_t together = tiles_together(arguments, in_padded, sizeof(uint16_t));
  const int64_t panel = in_padded * kTileRows, rows = together * kTileRows;

  parallel(arguments.threads, [&](const Team& team) {
    const auto [first_tokens, end_tokens] = team.share(inputs.token_tiles());
    for (int64_t token_tile = first_tokens; token_tile < end_tokens; ++token_tile) inputs.prepare(token_tile);
    team.wait_for_all();
    MatrixTiles::configure();
    const Buffer<uint16_t> panels(together * panel);
    const Buffer<float> sums(kTogether * MatrixTiles::kTokens * rows);  // [token][row]
    const auto [begin, end] = team.share(tile_count(arguments.weight));
    for (int64_t first_tile = begin; first_tile < end; first_tile += together) {
      const int64_t tiles = smaller(together, end - first_tile);
      decode({arguments.weight, first_tile, first_tile + tiles, PanelKind::kMatrix, panels.data()});
      for (int64_t token_tile = 0; token_tile < inputs.token_tiles(); token_tile += kTogether) {
        const int64_t token_tiles = smaller(kTogether, inputs.token_tiles() - token_tile);
        for (int64_t input_tile = 0; input_tile < input_tiles; input_tile += kStretchTiles) {
          const int64_t count = smaller(kStretchTiles, input_tiles - input_tile);
          for (int64_t tile = 0; tile < tiles; tile += kTogether) {
            MatrixTiles::multiply(token_tiles, smaller(kTogether, tiles - tile), inputs.tile(token_tile, input_tile),
                                  inputs.stride(), panels.data() + tile * panel + input_tile * MatrixTiles::kElements,
                                  panel, count, input_tile == 0, sums.data() + tile * kTileRows, rows);
          }
        }
        const int64_t token = token_tile * MatrixTiles::kTokens;
        const int64_t tokens = smaller(token_tiles * MatrixTiles::kTokens, arguments.tokens - token);
        for (int64_t i = 0; i < tokens; ++i) {
          for (int64_t tile = 0; tile < tiles; ++tile) {
            write_outputs(arguments, first_tile + tile, token + i, sums.data() + i * rows + tile * kTileRows);
          }
        }
      }
    }
    MatrixTiles::release();
  });
}
#endif

void run(const LinearArguments& arguments, DecodePanels decode) {
#ifdef __AVX512BF16__
  if (arguments.x_dtype == Dtype::kBFloat16) {
    return arguments.use_matrix_tiles ? matrix_prefill(arguments, decode)
                                      : vector_prefill<Bf16Products>(arguments, decode);
  }
#endif
  vector_prefill<Fp32Products>(arguments, decode);
}

}  // namespace

const Prefill kPrefill{run};

}  // namespace requant::cpu::REQUANT_ISA
