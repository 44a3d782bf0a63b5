"""requant-kernels: low-bit inference for language models with a fused sparse part, W = D + S.

`import requant_kernels` registers the operators in `torch.ops.requant`, and with transformers the quantization method
"requant", so that `AutoModelForCausalLM.from_pretrained` loads our checkpoints.
"""

from requant_kernels import ops as ops
from requant_kernels.dispatch import use_backend
from requant_kernels.embedding import QuantizedEmbedding
from requant_kernels.errors import CheckpointError
from requant_kernels.formats import DenseWeight, LayerSpec, LutWeight, SparseWeight, TrellisWeight, UniformWeight
from requant_kernels.integrations import register_with_transformers
from requant_kernels.linear import DenseSparseLinear, set_activations
from requant_kernels.merge import merge_linears
from requant_kernels.version import __version__

__all__ = [
    "CheckpointError",
    "DenseSparseLinear",
    "DenseWeight",
    "LayerSpec",
    "LutWeight",
    "QuantizedEmbedding",
    "SparseWeight",
    "TrellisWeight",
    "UniformWeight",
    "__version__",
    "merge_linears",
    "set_activations",
    "use_backend",
]

register_with_transformers()
