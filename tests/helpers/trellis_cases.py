"""Random weights of format `trellis`, for the tests of kernels."""

from __future__ import annotations

import torch
from viterbi_reference import random_walks

from requant_kernels.formats import SparseWeight, TrellisWeight, trellis
from requant_kernels.operands import WeightOperands

KINDS = [(code, bits) for code in trellis.CODES for bits in (2, 3, 4)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def random_weight(code: str, bits: int, out_features: int, in_features: int) -> TrellisWeight:
    """Random walks, signs and scales of a random dtype."""
    out_padded, in_padded = trellis.padded_shape(out_features, in_features)
    return TrellisWeight.pack(
        random_walks((out_padded // 16, in_padded // 16), bits, trellis.VALUES_PER_STEP[code]),
        (torch.rand(out_padded) + 0.5).to(DTYPES[int(torch.randint(3, ()))]),
        torch.randint(0, 2, (in_features,)) * 2 - 1,
        torch.randint(0, 2, (out_features,)) * 2 - 1,
        torch.randn(trellis.CODEBOOK_SHAPE) if code == "hyb" else None,
        bits=bits,
        code=code,
    )


def random_sparse(out_features: int, in_features: int, share: float) -> SparseWeight:
    """Entries at random places, and a full column."""
    mask = torch.rand(out_features, in_features) < share
    mask[:, int(torch.randint(in_features, ()))] = True
    return SparseWeight.from_dense(3 * torch.randn(out_features, in_features), mask)


def operands(dense: TrellisWeight, sparse: SparseWeight | None = None) -> WeightOperands:
    """What kernels are given."""
    tensors = (dense.codes, dense.scale, dense.input_signs, dense.output_signs, dense.codebook)
    entries = (None,) * 3 if sparse is None else (sparse.row_offsets, sparse.columns, sparse.values)
    sizes = (dense.out_features, dense.in_features)
    return WeightOperands("trellis", tensors, *entries, None, *sizes, (dense.bits, dense.code))
