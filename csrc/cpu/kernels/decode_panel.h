// Decodes whole tiles of W = D + S, for any format, into the panels that the prefill kernel multiplies with.
#pragma once

#include "arguments.h"
#include "kernels/conversion.h"
#include "kernels/panel.h"
#include "kernels/sparse.h"
#include "kernels/tiles.h"
#ifdef __AMX_BF16__
#include "kernels/matrix_panel.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

// Layout is Panel<Products> or MatrixPanel. In bf16 D is rounded before S is added, and the sum again.
template <class Layout, class Element>
void add_entries(const Weight& weight, int64_t tile, Element* panel) {
  if (weight.sparse.words == nullptr) return;
  for_each_entry(weight, tile, [&](int64_t input, int row, float value) REQUANT_INLINE {
    Element& place = panel[Layout::place(row, input)];
    if constexpr (sizeof(Element) == sizeof(uint16_t)) {
      place = float_to_bf16(bf16_to_float(place) + value);
    } else {
      place += value;
    }
  });
}

// run(block, Index<first step>, Index<last step>) for the blocks of a tile, each with the right group selected.
template <class Format, class Run>
REQUANT_INLINE inline void for_each_block_of_tile(Format& format, const Segments& segments, Run run) {
  for (int64_t index = 0; index < segments.count(); ++index) {
    format.select_group(segments[index].group);
    for_each_block(segments[index], run);
  }
}

// Format has Fp32Products.
template <class Format>
void decode_panels(const PanelArguments& arguments) {
  constexpr int kBlockBytes = Block<Format::kBits>::kBytes;
  const Weight& weight = arguments.weight;
  const Segments segments(weight);
  for (int64_t tile = arguments.tile_begin; tile < arguments.tile_end; ++tile) {
    Format format(weight, segments.groups(), tile);
    const uint8_t* codes = tile_codes<Format::kBits>(weight, tile);
    const int64_t start = (tile - arguments.tile_begin) * segments.in_padded() * kTileRows;
    const auto decode = [&](auto* panel, auto products, auto store) REQUANT_INLINE {
      using Layout = Panel<decltype(products)>;
      for_each_block_of_tile(format, segments, [&](int64_t block, auto first, auto last) REQUANT_INLINE {
        prefetch_block<kBlockBytes>(codes + block * kBlockBytes);
        store(panel + block * kBlockInputs * kTileRows, first, last, [&](auto* place) REQUANT_INLINE {
          Layout::template decode_scaled<first.value, last.value>(format, codes + block * kBlockBytes, place);
        });
      });
    };
    const auto in_place = [](auto* place, auto, auto, auto decode_to) REQUANT_INLINE { decode_to(place); };
    if (arguments.kind == PanelKind::kFloat32) {
      float* panel = static_cast<float*>(arguments.panels) + start;
      decode(panel, Fp32Products{}, in_place);
      add_entries<Panel<Fp32Products>>(weight, tile, panel);
    }
#ifdef __AVX512BF16__
    if (arguments.kind == PanelKind::kBFloat16) {
      uint16_t* panel = static_cast<uint16_t*>(arguments.panels) + start;
      decode(panel, Bf16Products{}, in_place);
      add_entries<Panel<Bf16Products>>(weight, tile, panel);
    }
    if (arguments.kind == PanelKind::kMatrix) {
      uint16_t* panel = static_cast<uint16_t*>(arguments.panels) + start;
      decode(panel, Bf16Products{}, [](auto* place, auto first, auto last, auto decode_to) REQUANT_INLINE {
        alignas(64) uint16_t decoded[Panel<Bf16Products>::kBlock];
        decode_to(decoded);
        MatrixPanel::store_block<first.value, last.value>(decoded, place);
      });
      add_entries<MatrixPanel>(weight, tile, panel);
    }
#endif
  }
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
