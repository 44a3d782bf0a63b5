"""The CPU backend: registers the kernels of the extension `requant_kernels._cpu`.

One call computes D and S together: `decode` (one token) decodes weights in registers, `batch` (a few tokens) decodes
them once for all tokens, `prefill` (many tokens) decodes a few rows at a time, sparse part included, into a panel that
stays in the cache for the matrix product with all tokens. REQUANT_CPU_ISA (scalar, avx2, avx512, avx512bf16 or amx)
limits the instruction set.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from requant_kernels.backends.native import DTYPES, address, dtype_number, native_weight
from requant_kernels.dispatch import Backend
from requant_kernels.formats import trellis
from requant_kernels.operands import WeightOperands

try:
    from requant_kernels import _cpu

    UNAVAILABLE_REASON = None
except ImportError as error:
    UNAVAILABLE_REASON = f"the extension requant_kernels._cpu is missing ({error}); install with REQUANT_EXTENSIONS=1"

INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "avx512bf16", "amx")
"""All that exist, slowest first; a processor runs a first part of them."""

INDEX_DTYPE = torch.uint8
"""Of the sparse index: tells it from another backend's."""

EMBEDDING_PARALLEL_TOKENS = 32
"""Fewer rows are fetched sooner than other threads wake up."""


def instruction_set() -> str:
    """The instruction set in use: the best that this processor has, up to REQUANT_CPU_ISA when it is first asked for.

    Raises ValueError if REQUANT_CPU_ISA is set to something else than one of INSTRUCTION_SETS.
    """
    return _cpu.instruction_sets()[selected_instruction_set()]


@functools.cache
def selected_instruction_set() -> int:
    """Its place among those that run here."""
    limit = os.environ.get("REQUANT_CPU_ISA") or INSTRUCTION_SETS[-1]
    if limit not in INSTRUCTION_SETS:
        raise ValueError(f"REQUANT_CPU_ISA must be one of {', '.join(INSTRUCTION_SETS)}, got '{limit}'")
    return min(INSTRUCTION_SETS.index(limit), len(_cpu.instruction_sets()) - 1)


def prepare_sparse(row_offsets: Tensor, columns: Tensor, values: Tensor, out_features: int, in_features: int) -> Tensor:
    """The sparse index, uint8: the entries of CSR in the order in which the kernels meet them.

    Raises ValueError if row offsets or columns are out of range or columns do not rise within a row.
    """
    index = torch.empty(_cpu.sparse_index_bytes(out_features, in_features, values.numel()), dtype=INDEX_DTYPE)
    _cpu.build_sparse_index(
        row_offsets.data_ptr(),
        columns.data_ptr(),
        columns.dtype == torch.uint16,
        values.data_ptr(),
        out_features,
        in_features,
        values.numel(),
        index.data_ptr(),
    )
    return index


def _indexed(weight: WeightOperands) -> WeightOperands:
    """With a sparse index: the one that came with the call, unless another backend made it, or one made for it."""
    row_offsets, columns, values, index = weight.row_offsets, weight.columns, weight.values, weight.sparse_index
    if row_offsets is None or columns is None or values is None or (index is not None and index.dtype == INDEX_DTYPE):
        return weight
    index = prepare_sparse(row_offsets, columns, values, weight.out_features, weight.in_features)
    return weight._replace(sparse_index=index)


def _call(
    linear: Callable[..., None],
    native: _cpu.Weight,
    x: Tensor,
    weight: WeightOperands,
    bias: Tensor | None,
    *options: bool,
) -> Tensor:
    """y from one linear function of the extension; `options` are its last arguments."""
    y = x.new_empty(*x.shape[:-1], weight.out_features)
    linear(
        selected_instruction_set(),
        native,
        x.data_ptr(),
        DTYPES[x.dtype],
        x.numel() // weight.in_features,
        address(bias),
        dtype_number(bias),
        y.data_ptr(),
        torch.get_num_threads(),
        *options,
    )
    return y


def _linear(prefill: bool, x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    weight = _indexed(weight)
    return _call(_cpu.linear, native_weight(_cpu, weight), x, weight, bias, prefill, activations == "int8")


few_tokens = functools.partial(_linear, False)
"""The kernel for one token (decode) and for a few (batch)."""

many_tokens = functools.partial(_linear, True)
"""The kernel for many tokens (prefill)."""


def dequantize(weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """The kernel that makes all of W."""
    weight = _indexed(weight)
    # In 16 bits the extension would round D before it adds S; so the sum is rounded once.
    exact = dtype if weight.sparse_index is None else torch.float32
    w = torch.empty((weight.out_features, weight.in_features), dtype=exact)
    rows = (0, weight.out_features)
    isa, threads = selected_instruction_set(), torch.get_num_threads()
    _cpu.dequantize(isa, native_weight(_cpu, weight), *rows, w.data_ptr(), DTYPES[exact], threads)
    return w.to(dtype)


def embedding(indices: Tensor, weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """The kernel that fetches rows of a uniform W."""
    tokens = indices.numel()
    y = torch.empty((tokens, weight.in_features), dtype=dtype)
    threads = torch.get_num_threads() if tokens >= EMBEDDING_PARALLEL_TOKENS else 1
    isa = selected_instruction_set()
    _cpu.embedding(isa, native_weight(_cpu, weight), indices.data_ptr(), tokens, y.data_ptr(), DTYPES[dtype], threads)
    return y


_PHASES: dict[str, Callable[..., Tensor]] = {
    "decode": few_tokens,
    "batch": few_tokens,
    "prefill": many_tokens,
    "dequantize": dequantize,
}


def trellis_linear(x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    """The kernel of format trellis for any number of tokens."""
    weight = _indexed(weight)
    return _call(_cpu.trellis_linear, native_weight(_cpu, weight), x, weight, bias)


def trellis_dequantize(weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """The kernel of format trellis that makes all of W."""
    rotated = torch.empty(trellis.padded_shape(weight.out_features, weight.in_features))
    _cpu.trellis_decode_rotated(
        selected_instruction_set(),
        native_weight(_cpu, weight),
        0,
        rotated.shape[0],
        rotated.data_ptr(),
        DTYPES[torch.float32],
        torch.get_num_threads(),
    )
    _, _, input_signs, output_signs, _ = weight.dense
    assert input_signs is not None
    assert output_signs is not None
    dense, sparse = trellis.rotate_back(rotated, input_signs, output_signs), weight.sparse_weight
    return (dense if sparse is None else dense + sparse.to_dense()).to(dtype)


_TRELLIS_PHASES: dict[str, Callable[..., Tensor]] = {
    "decode": trellis_linear,
    "batch": trellis_linear,
    "prefill": trellis_linear,
    "dequantize": trellis_dequantize,
}

BACKEND = Backend(
    name="cpu",
    unavailable_reason=UNAVAILABLE_REASON,
    devices=("cpu",),
    kernels={
        **{(format, phase): kernel for format in ("uniform", "lut") for phase, kernel in _PHASES.items()},
        ("uniform", "embedding"): embedding,
        **{("trellis", phase): kernel for phase, kernel in _TRELLIS_PHASES.items()},
    },
    prepare_sparse=prepare_sparse,
)
