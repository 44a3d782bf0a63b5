"""What the stored bits mean: dense formats, the sparse part, and the description of one layer. Knows no backend."""

from requant_kernels.formats.lut import LutWeight
from requant_kernels.formats.sparse import SparseWeight
from requant_kernels.formats.spec import DENSE_FORMATS, LayerSpec
from requant_kernels.formats.trellis import TrellisWeight
from requant_kernels.formats.uniform import UniformWeight

DenseWeight = UniformWeight | LutWeight | TrellisWeight

__all__ = ["DENSE_FORMATS", "DenseWeight", "LayerSpec", "LutWeight", "SparseWeight", "TrellisWeight", "UniformWeight"]
