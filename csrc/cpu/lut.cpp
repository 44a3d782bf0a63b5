// The kernels of format `lut`, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels/lut.h"

#include "kernels.h"
#include "kernels/decode_panel.h"
#include "kernels/dequantize.h"
#include "kernels/run_linear.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <int kEntryBytes, class Products>
void linear_with(const LinearArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return run_linear<Lut<2, kEntryBytes, Products>>(arguments);
    case 3:
      return run_linear<Lut<3, kEntryBytes, Products>>(arguments);
    case 4:
      return run_linear<Lut<4, kEntryBytes, Products>>(arguments);
  }
}

void linear(const LinearArguments& arguments) {
  if (arguments.weight.table_dtype != Dtype::kBFloat16) return linear_with<4, Fp32Products>(arguments);
#ifdef __AVX512BF16__
  if (arguments.x_dtype == Dtype::kBFloat16) return linear_with<2, Bf16Products>(arguments);
#endif
  linear_with<2, Fp32Products>(arguments);
}

template <int kEntryBytes>
void dequantize_with(const DequantizeArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return run_dequantize<Lut<2, kEntryBytes, Fp32Products>>(arguments);
    case 3:
      return run_dequantize<Lut<3, kEntryBytes, Fp32Products>>(arguments);
    case 4:
      return run_dequantize<Lut<4, kEntryBytes, Fp32Products>>(arguments);
  }
}

void dequantize(const DequantizeArguments& arguments) {
  if (arguments.weight.table_dtype == Dtype::kBFloat16) return dequantize_with<2>(arguments);
  dequantize_with<4>(arguments);
}

template <int kEntryBytes>
void decode_with(const PanelArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return decode_panels<Lut<2, kEntryBytes, Fp32Products>>(arguments);
    case 3:
      return decode_panels<Lut<3, kEntryBytes, Fp32Products>>(arguments);
    case 4:
      return decode_panels<Lut<4, kEntryBytes, Fp32Products>>(arguments);
  }
}

void decode(const PanelArguments& arguments) {
  if (arguments.weight.table_dtype == Dtype::kBFloat16) return decode_with<2>(arguments);
  decode_with<4>(arguments);
}

}  // namespace

const Kernels kLut{linear, dequantize, decode};

}  // namespace requant::cpu::REQUANT_ISA
