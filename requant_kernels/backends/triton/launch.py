"""Launches the Triton kernels on torch tensors, on the tensors' device and its current stream.

Imported when the first kernel is called, never before: it imports triton.
"""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from requant_kernels.backends import sparse_tiles
from requant_kernels.backends.triton import INTERPRETED, kernels
from requant_kernels.backends.triton.tiles import Kernel, Tile, tile_for
from requant_kernels.formats import tile16, trellis
from requant_kernels.formats.hadamard import factors, hartley
from requant_kernels.operands import WeightOperands

SCRATCH_BYTES = 64 << 20
"""Of decoded rows, for torch's matrix product."""

ADD_UP_BLOCK = 1024
DEQUANTIZE_WARPS = 4
DEQUANTIZE_ENTRIES = 32
HADAMARD_VALUES_PER_WARP = 1024

_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


class Target(NamedTuple):
    """What the choice of a tile depends on."""

    architecture: str
    """`cuda:80`, `hip:gfx942`, ..."""
    multiprocessors: int


def target_of(device: torch.device) -> Target:
    """The device's, or a stand-in where the kernels are interpreted."""
    return Target("interpreter", 1) if INTERPRETED else _target_of(device)


@functools.cache
def _target_of(device: torch.device) -> Target:
    with on_device(device):
        target = triton.runtime.driver.active.get_current_target()
    return Target(f"{target.backend}:{target.arch}", _properties(device)["multiprocessor_count"])


def _properties(device: torch.device) -> dict[str, int]:
    with on_device(device):
        driver = triton.runtime.driver.active
        return driver.utils.get_device_properties(driver.get_current_device())


def shared_memory_bytes(device: torch.device) -> int:
    """What one program may have on the device."""
    return _properties(device)["max_shared_mem"]


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, and on its current stream."""
    return nullcontext() if INTERPRETED else torch.get_device_module(device).device(device)


class Dense(NamedTuple):
    """D as the kernels' arguments."""

    tensors: dict[str, Tensor | None]
    constants: dict[str, Any]
    out_features: int
    """Of format trellis the padded sizes: those of C."""
    in_features: int

    @classmethod
    def of(cls, weight: WeightOperands) -> Dense:
        """The dense part of a weight."""
        return _DENSE[weight.format](weight)


def _uniform(weight: WeightOperands) -> Dense:
    codes, scale, zero = weight.dense
    tensors = {"codes": codes, "scale": scale, "zero": zero, "table": None}
    return Dense(tensors, _constants(weight, weight.parameters[1], ""), weight.out_features, weight.in_features)


def _lut(weight: WeightOperands) -> Dense:
    codes, table, scale = weight.dense
    assert table is not None
    tensors = {"codes": codes, "scale": scale, "zero": None, "table": table}
    code = "shared" if table.shape[0] == 1 else "row"
    return Dense(tensors, _constants(weight, weight.parameters[1], code), weight.out_features, weight.in_features)


def _trellis(weight: WeightOperands) -> Dense:
    codes, scale, _, _, codebook = weight.dense
    tensors = {"codes": codes, "scale": scale, "zero": None, "table": codebook}
    padded = trellis.padded_shape(weight.out_features, weight.in_features)
    return Dense(tensors, _constants(weight, -1, weight.parameters[1]), *padded)


_DENSE = {"uniform": _uniform, "lut": _lut, "trellis": _trellis}


def _constants(weight: WeightOperands, group_size: int, code: str) -> dict[str, Any]:
    return {
        "FORMAT": weight.format,
        "BITS": weight.parameters[0],
        "GROUP": max(group_size, 0),
        "CODE": code,
        "BFLOAT_VALUES": weight.values is not None and weight.values.dtype == torch.bfloat16,
    }


def sparse_index_of(weight: WeightOperands) -> Tensor | None:
    """The one that came with the call, or one made for it; None if there is no sparse part. The CPU backend's, which
    a layer keeps whose backend is changed after it was loaded, has another dtype.
    """
    row_offsets, columns, values = weight.row_offsets, weight.columns, weight.values
    if row_offsets is None or columns is None or values is None:
        return None
    if weight.sparse_index is not None and weight.sparse_index.dtype == sparse_tiles.INDEX_DTYPE:
        return weight.sparse_index
    return sparse_tiles.prepare_sparse(row_offsets, columns, values, weight.out_features, weight.in_features)


def linear(x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    """The kernel for any number of tokens: y = x @ (D + S).T + bias, each weight decoded in registers."""
    if INTERPRETED and x.dtype == torch.bfloat16:  # the interpreter gets products in bf16 wrong
        return linear(x.float(), weight, bias, activations).to(torch.bfloat16)
    target = target_of(x.device)
    kernel = Kernel.of(weight.format, weight.parameters[0], x.numel() // weight.in_features)
    with on_device(x.device):
        return linear_with(x, weight, bias, kernel, tile_for(target.architecture, kernel), target.multiprocessors)


def linear_with(
    x: Tensor, weight: WeightOperands, bias: Tensor | None, kernel: Kernel, tile: Tile, multiprocessors: int
) -> Tensor:
    """The same with a given tile, on the current device."""
    dense, rotates = Dense.of(weight), weight.format == "trellis"
    tokens = x.numel() // weight.in_features
    token_tiles, row_tiles = triton.cdiv(tokens, kernel.tokens), triton.cdiv(dense.out_features, tile.rows)
    splits, slices = split_inputs(dense.in_features, tile, multiprocessors, row_tiles * token_tiles)
    sparse_index = sparse_index_of(weight)
    whole = splits == 1 and not rotates
    y = x.new_empty((*x.shape[:-1], weight.out_features))
    slots = splits * (2 if rotates and sparse_index is not None else 1)
    partial = y if whole else x.new_empty((slots, tokens, dense.out_features), dtype=torch.float32)
    kernels.linear[row_tiles, splits, token_tiles](
        x,
        rotate_inputs(x, weight) if rotates else x,
        **dense.tensors,
        sparse_index=sparse_index,
        bias=bias if whole else None,
        y=partial,
        tokens=tokens,
        slices=slices,
        out_features=weight.out_features,
        in_features=weight.in_features,
        dense_out=dense.out_features,
        dense_in=dense.in_features,
        **dense.constants,
        WHOLE=whole,
        ROWS=tile.rows,
        INPUTS=tile.inputs,
        TOKENS=kernel.tokens,
        ENTRIES=tile.entries,
        PRECISION="ieee",
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if rotates:
        rotate_outputs(partial[:splits], partial[splits:], weight, bias, y)
    elif not whole:
        kernels.add_up[(triton.cdiv(y.numel(), ADD_UP_BLOCK),)](
            partial, bias, y, y.numel(), weight.out_features, splits, BLOCK=ADD_UP_BLOCK
        )
    return y


def split_inputs(in_features: int, tile: Tile, multiprocessors: int, tiles: int) -> tuple[int, int]:
    """(how many programs share a row's inputs, slices of 256 inputs for each)."""
    wanted = max(tile.programs * multiprocessors // tiles, 1)
    all_slices = sparse_tiles.slice_count(in_features)
    slices = triton.cdiv(all_slices, wanted)
    return triton.cdiv(all_slices, slices), slices


@functools.cache
def _hartley(size: int, device: torch.device) -> Tensor:
    return hartley(size).to(device, torch.float32)


def _hadamard(parts: int, tokens: int, power: int, *arguments: Any, output: bool) -> None:
    warps = min(max(power // HADAMARD_VALUES_PER_WARP, 1), 16)
    steps = int(math.log2(power))
    kernels.hadamard[tokens, parts](*arguments, OUTPUT=output, STEPS=steps, num_warps=warps)


def rotate_inputs(x: Tensor, weight: WeightOperands) -> Tensor:
    """H (input_signs * x), padded, in x's dtype: one launch, and a product with the odd factor of the size if it has
    one.
    """
    _, _, input_signs, _, _ = weight.dense
    tokens, padded = x.numel() // weight.in_features, trellis.padded_shape(1, weight.in_features)[1]
    odd, power = factors(padded)
    rotated = x.new_empty((tokens, odd, power), dtype=x.dtype if odd == 1 else torch.float32)
    sizes = (1, 0, 0, weight.in_features, padded)
    _hadamard(odd, tokens, power, x, None, input_signs, None, rotated, *sizes, output=False)
    return rotated if odd == 1 else (_hartley(odd, x.device) @ rotated).to(x.dtype)


def rotate_outputs(partial: Tensor, sparse: Tensor, weight: WeightOperands, bias: Tensor | None, y: Tensor) -> None:
    """y = output_signs * H (sum of partial) + sum of sparse + bias; both fp32 [splits, tokens, out_padded]."""
    _, _, _, output_signs, _ = weight.dense
    splits, tokens, padded = partial.shape
    odd, power = factors(padded)
    if odd > 1:
        parts = partial.sum(0, keepdim=True).view(tokens, odd, power)
        partial, splits = _hartley(odd, y.device) @ parts, 1
    sizes = (splits, sparse.shape[0], tokens * padded, padded, weight.out_features)
    _hadamard(odd, tokens, power, partial, sparse, output_signs, bias, y, *sizes, output=True)


def product_of_decoded(x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    """The kernel for many tokens: rows of W decoded into a bounded scratch, each slice used at once by torch's matrix
    product.
    """
    inputs = x.view(-1, weight.in_features)
    y = x.new_empty((*x.shape[:-1], weight.out_features))
    outputs = y.view(-1, weight.out_features)
    slices = triton.cdiv(weight.out_features * weight.in_features * x.element_size(), SCRATCH_BYTES)
    rows = tile16.round_up(triton.cdiv(weight.out_features, slices), tile16.TILE_ROWS)
    scratch = x.new_empty((min(rows, weight.out_features), weight.in_features))
    with on_device(x.device):
        for begin in range(0, weight.out_features, rows):
            end = min(begin + rows, weight.out_features)
            decode_rows(weight, begin, end, scratch)
            products = inputs @ scratch[: end - begin].T
            outputs[:, begin:end] = products if bias is None else products + bias[begin:end]
    return y


def dequantize(weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """The kernel that makes all of W."""
    if INTERPRETED and dtype == torch.bfloat16:  # the interpreter does not round to nearest
        return dequantize(weight, torch.float32).to(dtype)
    dense = Dense.of(weight)
    with on_device(weight.codes.device):
        if weight.format != "trellis":
            w = weight.codes.new_empty((weight.out_features, weight.in_features), dtype=dtype)
            decode_rows(weight, 0, weight.out_features, w)
            return w
        rotated = weight.codes.new_empty((dense.out_features, dense.in_features), dtype=torch.float32)
        decode_rows(weight._replace(row_offsets=None), 0, dense.out_features, rotated)
        _, _, input_signs, output_signs, _ = weight.dense
        assert input_signs is not None
        assert output_signs is not None
        w, sparse = trellis.rotate_back(rotated, input_signs, output_signs), weight.sparse_weight
        return (w if sparse is None else w + sparse.to_dense()).to(dtype)


def decode_rows(weight: WeightOperands, row_begin: int, row_end: int, w: Tensor) -> None:
    """Rows row_begin ..< row_end of W into w, of format trellis of diag(scale) C; row_begin is a multiple of 16."""
    dense = Dense.of(weight)
    values = torch.float32 if INTERPRETED or weight.values is None else weight.values.dtype
    grid = triton.cdiv(row_end - row_begin, tile16.TILE_ROWS), triton.cdiv(dense.in_features, sparse_tiles.SLICE_INPUTS)
    kernels.dequantize[grid](
        **dense.tensors,
        sparse_index=sparse_index_of(weight),
        w=w,
        row_begin=row_begin,
        row_end=row_end,
        out_features=dense.out_features,
        in_features=dense.in_features,
        **dense.constants,
        ENTRIES=DEQUANTIZE_ENTRIES,
        ENTRY_DTYPE=_DTYPES[values],
        num_warps=DEQUANTIZE_WARPS,
    )
