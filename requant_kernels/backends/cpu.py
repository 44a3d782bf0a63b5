"""The CPU backend: registers the kernels of the extension `requant_kernels._cpu`.

One call computes D and S together: `decode` (one token) decodes weights in registers, `batch` (a few tokens) decodes
them once for all tokens, `prefill` (many tokens) decodes slices of rows, sparse part included, and hands each slice to
torch's matrix product. REQUANT_CPU_ISA (scalar, avx2, avx512, avx512bf16 or amx) limits the instruction set.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from requant_kernels.dispatch import Backend, Kernel
from requant_kernels.formats.tile16 import TILE_ROWS, round_up

try:
    from requant_kernels import _cpu

    UNAVAILABLE_REASON = None
except ImportError as error:
    UNAVAILABLE_REASON = f"the extension requant_kernels._cpu is missing ({error}); install with REQUANT_EXTENSIONS=1"

INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "avx512bf16", "amx")
"""All that exist, slowest first; a processor runs a first part of them."""

PREFILL_SLICE_BYTES = 12 << 20
"""Size of one decoded slice of rows, at most: small enough for the cache, large enough for an efficient product."""

_DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def instruction_set() -> str:
    """The instruction set in use: the best that this processor has, up to REQUANT_CPU_ISA.

    Raises ValueError if REQUANT_CPU_ISA is set to something else than one of INSTRUCTION_SETS.
    """
    return _cpu.instruction_sets()[_instruction_set(os.environ.get("REQUANT_CPU_ISA"))]


@functools.cache
def _instruction_set(limit: str | None) -> int:
    limit = limit or INSTRUCTION_SETS[-1]
    if limit not in INSTRUCTION_SETS:
        raise ValueError(f"REQUANT_CPU_ISA must be one of {', '.join(INSTRUCTION_SETS)}, got '{limit}'")
    return min(INSTRUCTION_SETS.index(limit), len(_cpu.instruction_sets()) - 1)


def prepare_sparse(row_offsets: Tensor, columns: Tensor, values: Tensor, out_features: int, in_features: int) -> Tensor:
    """The sparse index, uint8: the entries of CSR in the order in which the kernels meet them.

    Raises ValueError if row offsets or columns are out of range or columns do not rise within a row.
    """
    index = torch.empty(_cpu.sparse_index_bytes(out_features, in_features, values.numel()), dtype=torch.uint8)
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


def _sparse_index(
    row_offsets: Tensor | None,
    columns: Tensor | None,
    values: Tensor | None,
    sparse_index: Tensor | None,
    out_features: int,
    in_features: int,
) -> Tensor | None:
    """The index that came with the call, or one made for it."""
    if sparse_index is not None or row_offsets is None or columns is None or values is None:
        return sparse_index
    return prepare_sparse(row_offsets, columns, values, out_features, in_features)


def _uniform_weight(
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    values: Tensor | None,
    sparse_index: Tensor | None,
    out_features: int,
    in_features: int,
    bits: int,
    group_size: int,
) -> _cpu.Weight:
    return _cpu.uniform_weight(
        codes.data_ptr(),
        scale.data_ptr(),
        0 if zero is None else zero.data_ptr(),
        _DTYPES[scale.dtype],
        0 if sparse_index is None else sparse_index.data_ptr(),
        0 if values is None else _DTYPES[values.dtype],
        out_features,
        in_features,
        bits,
        group_size,
    )


def _lut_weight(
    codes: Tensor,
    table: Tensor,
    scale: Tensor | None,
    values: Tensor | None,
    sparse_index: Tensor | None,
    out_features: int,
    in_features: int,
    bits: int,
    group_size: int,
) -> _cpu.Weight:
    return _cpu.lut_weight(
        codes.data_ptr(),
        table.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        _DTYPES[table.dtype],
        0 if scale is None else _DTYPES[scale.dtype],
        table.shape[0] == 1,
        0 if sparse_index is None else sparse_index.data_ptr(),
        0 if values is None else _DTYPES[values.dtype],
        out_features,
        in_features,
        bits,
        group_size,
    )


def _few_tokens(make_weight: Callable[..., _cpu.Weight]) -> Kernel:
    """The kernel for one token (decode) and for a few (batch)."""

    def kernel(
        x: Tensor,
        codes: Tensor,
        second: Tensor,
        third: Tensor | None,
        row_offsets: Tensor | None,
        columns: Tensor | None,
        values: Tensor | None,
        sparse_index: Tensor | None,
        bias: Tensor | None,
        out_features: int,
        bits: int,
        group_size: int,
        activations: str,
    ) -> Tensor:
        tokens, in_features = x.shape
        sparse_index = _sparse_index(row_offsets, columns, values, sparse_index, out_features, in_features)
        y = x.new_empty((tokens, out_features))
        _cpu.linear(
            _instruction_set(os.environ.get("REQUANT_CPU_ISA")),
            make_weight(codes, second, third, values, sparse_index, out_features, in_features, bits, group_size),
            x.data_ptr(),
            _DTYPES[x.dtype],
            tokens,
            0 if bias is None else bias.data_ptr(),
            0 if bias is None else _DTYPES[bias.dtype],
            y.data_ptr(),
            torch.get_num_threads(),
        )
        return y

    return kernel


def _padded(matrix: Tensor, columns: int) -> Tensor:
    """With that many columns of zeros appended."""
    return torch.nn.functional.pad(matrix, (0, columns)) if columns else matrix


def _slice_rows(out_features: int, row_bytes: int) -> int:
    """Rows of a slice: whole tiles, and all slices alike, since a short last one would be a slow product."""
    slices = max(1, -(-out_features * row_bytes // PREFILL_SLICE_BYTES))
    return round_up(-(-out_features // slices), TILE_ROWS)


def _prefill(make_weight: Callable[..., _cpu.Weight]) -> Kernel:
    """The kernel for many tokens: slices of rows of W, each used at once by torch's matrix product."""

    def kernel(
        x: Tensor,
        codes: Tensor,
        second: Tensor,
        third: Tensor | None,
        row_offsets: Tensor | None,
        columns: Tensor | None,
        values: Tensor | None,
        sparse_index: Tensor | None,
        bias: Tensor | None,
        out_features: int,
        bits: int,
        group_size: int,
        activations: str,
    ) -> Tensor:
        in_features = x.shape[1]
        sparse_index = _sparse_index(row_offsets, columns, values, sparse_index, out_features, in_features)
        weight = make_weight(codes, second, third, values, sparse_index, out_features, in_features, bits, group_size)
        # bf16 products round D + S to bf16; fp16 inputs are computed as fp32, since their products need its range.
        dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
        # oneDNN's bf16 product reads past the end of a row whose length is not a multiple of 32, and a NaN there
        # reaches the outputs of another token: pad such rows.
        padding = -in_features % 32 if dtype == torch.bfloat16 else 0
        inputs = _padded(x.to(dtype), padding)
        y = x.new_empty((x.shape[0], out_features))
        rows = _slice_rows(out_features, in_features * dtype.itemsize)
        tile = torch.empty((rows, in_features), dtype=dtype)
        product = y if y.dtype == dtype else inputs.new_empty((x.shape[0], out_features))
        isa, threads = _instruction_set(os.environ.get("REQUANT_CPU_ISA")), torch.get_num_threads()
        for begin in range(0, out_features, rows):
            end = min(begin + rows, out_features)
            _cpu.dequantize(isa, weight, begin, end, tile.data_ptr(), _DTYPES[dtype], threads)
            matrix = _padded(tile[: end - begin], padding).t()
            if bias is None:
                torch.mm(inputs, matrix, out=product[:, begin:end])
            else:
                torch.addmm(bias[begin:end].to(dtype), inputs, matrix, out=product[:, begin:end])
        if product is not y:
            y.copy_(product)
        return y

    return kernel


def _dequantize(make_weight: Callable[..., _cpu.Weight]) -> Kernel:
    """The kernel that makes all of W."""

    def kernel(
        codes: Tensor,
        second: Tensor,
        third: Tensor | None,
        row_offsets: Tensor | None,
        columns: Tensor | None,
        values: Tensor | None,
        out_features: int,
        in_features: int,
        bits: int,
        group_size: int,
        dtype: torch.dtype,
    ) -> Tensor:
        sparse_index = _sparse_index(row_offsets, columns, values, None, out_features, in_features)
        weight = make_weight(codes, second, third, values, sparse_index, out_features, in_features, bits, group_size)
        # The kernel's bf16 rounds D before it adds S, good enough inside a product; here the sum is rounded once.
        exact = torch.float32 if dtype == torch.bfloat16 and sparse_index is not None else dtype
        w = torch.empty((out_features, in_features), dtype=exact)
        isa = _instruction_set(os.environ.get("REQUANT_CPU_ISA"))
        _cpu.dequantize(isa, weight, 0, out_features, w.data_ptr(), _DTYPES[exact], torch.get_num_threads())
        return w.to(dtype)

    return kernel


_PHASES = {"decode": _few_tokens, "batch": _few_tokens, "prefill": _prefill, "dequantize": _dequantize}
_WEIGHTS = {"uniform": _uniform_weight, "lut": _lut_weight}

BACKEND = Backend(
    name="cpu",
    unavailable_reason=UNAVAILABLE_REASON,
    kernels={
        (format, phase): kernel(make_weight)
        for format, make_weight in _WEIGHTS.items()
        for phase, kernel in _PHASES.items()
    },
    prepare_sparse=prepare_sparse,
)
