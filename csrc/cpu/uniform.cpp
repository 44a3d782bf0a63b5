// The kernels of format `uniform`, compiled once per instruction set.
#include REQUANT_ISA_HEADER

#include "kernels/uniform.h"

#include "kernels.h"
#include "kernels/decode_panel.h"
#include "kernels/dequantize.h"
#include "kernels/embedding.h"
#include "kernels/run_linear.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

template <class Products>
void linear_with(const LinearArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return run_linear<Uniform<2, Products>>(arguments);
    case 3:
      return run_linear<Uniform<3, Products>>(arguments);
    case 4:
      return run_linear<Uniform<4, Products>>(arguments);
    case 8:
      if (arguments.tokens == 1) return DecodeLinear<Uniform<8, typename Products::ByteProducts>>(arguments).run();
      return run_linear<Uniform<8, Products>>(arguments);
  }
}

void linear(const LinearArguments& arguments) {
#ifdef __AVX512BF16__
  if (arguments.x_dtype == Dtype::kBFloat16) return linear_with<Bf16Products>(arguments);
#endif
  linear_with<Fp32Products>(arguments);
}

void dequantize(const DequantizeArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return run_dequantize<Uniform<2, Fp32Products>>(arguments);
    case 3:
      return run_dequantize<Uniform<3, Fp32Products>>(arguments);
    case 4:
      return run_dequantize<Uniform<4, Fp32Products>>(arguments);
    case 8:
      return run_dequantize<Uniform<8, Fp32Products>>(arguments);
  }
}

void decode(const PanelArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return decode_panels<Uniform<2, Fp32Products>>(arguments);
    case 3:
      return decode_panels<Uniform<3, Fp32Products>>(arguments);
    case 4:
      return decode_panels<Uniform<4, Fp32Products>>(arguments);
    case 8:
      return decode_panels<Uniform<8, Fp32Products>>(arguments);
  }
}

void embedding(const EmbeddingArguments& arguments) {
  switch (arguments.weight.bits) {
    case 2:
      return Embedding<2>(arguments).run();
    case 3:
      return Embedding<3>(arguments).run();
    case 4:
      return Embedding<4>(arguments).run();
    case 8:
      return Embedding<8>(arguments).run();
  }
}

}  // namespace

const Kernels kUniform{linear, dequantize, decode, embedding};

}  // namespace requant::cpu::REQUANT_ISA
