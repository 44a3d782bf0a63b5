// Decodes tiles of C of format `trellis` into the panels that the prefill kernel multiplies with: values times the
// code's unit, without scale (Rotation::finish applies it) and in the rotated basis, where nothing is sparse.
//
// A tile of 16 inputs fills the same 256 elements of every kind of panel.
#pragma once

#include "arguments.h"
#include "kernels/panel.h"
#include "kernels/trellis_codes.h"
#ifdef __AMX_BF16__
#include "kernels/matrix_panel.h"
#endif

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Code, int kBits>
class TrellisPanels {
  using States = TileStates<kBits, Code::kValuesPerStep>;
  static constexpr int kElements = kTrellisTile * kTrellisTile;
  static constexpr int kSteps = kTrellisTile / kStepInputs;

 public:
  explicit TrellisPanels(const PanelArguments& arguments)
      : arguments_(arguments),
        code_(arguments.weight.trellis),
        tiles_(arguments.weight.in_features / kTrellisTile),
        padded_tiles_((tiles_ + 1) / 2 * 2) {}

  void decode() const {
    if (arguments_.kind == PanelKind::kFloat32) {
      decode_to<float>([this](States states, float* panel) REQUANT_INLINE { store_floats32(states, panel); });
    }
#ifdef __AVX512BF16__
    if (arguments_.kind == PanelKind::kBFloat16) {
      decode_to<uint16_t>([this](States states, uint16_t* panel) REQUANT_INLINE { store_bf16(states, panel); });
    }
    if (arguments_.kind == PanelKind::kMatrix) {
      decode_to<uint16_t>([this](States states, uint16_t* panel) REQUANT_INLINE { store_pairs(states, panel); });
    }
#endif
  }

 private:
  // in_features is a multiple of 16, inputs of a panel are one of 32.
  template <class Element, class Store>
  REQUANT_INLINE void decode_to(Store store) const {
    Element* panel = static_cast<Element*>(arguments_.panels);
    for (int64_t row_tile = arguments_.tile_begin; row_tile < arguments_.tile_end; ++row_tile) {
      const uint8_t* codes = arguments_.weight.codes + row_tile * tiles_ * trellis_tile_bytes(kBits);
      for (int64_t tile = 0; tile < tiles_; ++tile, panel += kElements) {
        prefetch_block<trellis_tile_bytes(kBits)>(codes);
        store(States(codes), panel);
        codes += trellis_tile_bytes(kBits);
      }
      for (int64_t tile = tiles_; tile < padded_tiles_; ++tile, panel += kElements) {
        for (int i = 0; i < kElements; ++i) panel[i] = 0;
      }
    }
  }

  template <int kColumn>
  REQUANT_INLINE FloatLanes value(const States& states, int part) const {
    return code_.template value<kColumn>(states.template states<kColumn>(part));
  }

  REQUANT_INLINE void store_floats32(States states, float* panel) const {
    using Layout = Panel<Fp32Products>;
    states.order_rows_for_groups();
    unroll<0, kSteps * 2 * kParts>([&](auto index) REQUANT_INLINE {
      constexpr int kStep = index.value / (2 * kParts), kOdd = index.value / kParts % 2, kPart = index.value % kParts;
      FloatLanes columns[4];
      unroll<0, 4>([&](auto i) REQUANT_INLINE {
        columns[i.value] = value<kStep * kStepInputs + 2 * i.value + kOdd>(states, kPart);
      });
      transpose_groups(columns);
      float* slices = panel + kStep * Layout::kStep + (kOdd * Isa::kSlices + kPart * 4) * Layout::kRegister;
      for (int i = 0; i < 4; ++i) store_lanes(slices + i * Layout::kRegister, columns[i]);
    });
  }

#ifdef __AVX512BF16__
  // Values of two columns, row by row. Sums of bytes are integers below 512: beyond 256 the last bit is lost, whether
  // they are rounded or cut off.
  class JoinedValues {
   public:
    REQUANT_INLINE JoinedValues(const Code& code, const States& states) : code_(code), states_(states) {}
    template <int kColumn>
    REQUANT_INLINE Lanes pair() const {
      const FloatLanes even = value<kColumn>(), odd = value<kColumn + 1>();
      return reinterpret_cast<Lanes>(Code::kSumsBytes ? Isa::join_bf16(even, odd) : Isa::round_to_bf16(even, odd));
    }

   private:
    template <int kColumn>
    REQUANT_INLINE FloatLanes value() const {
      return code_.template value<kColumn>(states_.template states<kColumn>(0));
    }
    const Code& code_;
    const States& states_;
  };

  REQUANT_INLINE auto pairs(const States& states) const {
    if constexpr (Code::kPairInputs == 2) {
      return typename Code::template Pairs<States>(code_, states);
    } else {
      return JoinedValues(code_, states);
    }
  }

  REQUANT_INLINE void store_bf16(States states, uint16_t* panel) const {
    using Layout = Panel<Bf16Products>;
    states.order_rows_for_groups();
    const auto tile = pairs(states);
    unroll<0, kSteps>([&](auto step) REQUANT_INLINE {
      FloatLanes slices[4];
      unroll<0, 4>([&](auto i) REQUANT_INLINE {
        slices[i.value] = reinterpret_cast<FloatLanes>(tile.template pair<step.value * kStepInputs + 2 * i.value>());
      });
      transpose_groups(slices);
      unroll<0, 4>([&](auto slice) REQUANT_INLINE {
        Bf16Products::store(reinterpret_cast<Words>(slices[slice.value]),
                            panel + step.value * Layout::kStep + slice.value * Layout::kRegister);
      });
    });
  }

  REQUANT_INLINE void store_pairs(const States& states, uint16_t* panel) const {
    const auto tile = pairs(states);
    unroll<0, kTrellisTile / 2>([&](auto index) REQUANT_INLINE {
      Bf16Products::store(reinterpret_cast<Words>(tile.template pair<2 * index.value>()),
                          panel + MatrixPanel::place(0, 2 * index.value));
    });
  }
#endif

  const PanelArguments& arguments_;
  Code code_;
  int64_t tiles_;
  int64_t padded_tiles_;
};

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
