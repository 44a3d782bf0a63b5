"""How much each weight matters: gradients, diagonal Fisher information and the Post-quantization Integral."""

from requant.sensitivity.fisher import fisher_information
from requant.sensitivity.pqi import PathIntegral, post_quantization_integral
from requant.sensitivity.quadrature import quadrature_nodes

__all__ = ["PathIntegral", "fisher_information", "post_quantization_integral", "quadrature_nodes"]
