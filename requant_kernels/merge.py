"""Merged layers: q/k/v and gate/up projections as one packed matrix, computed in one call.

    q_proj  [tile 0 | tile 1 | ...]  -+
    k_proj  [tile 0 | ...]            +->  one layer of all tiles, whose output is cut into parts
    v_proj  [tile 0 | ...]           -+

The siblings stay where they are, so no model code changes: the first one that is called computes all of them, and the
others, called with the same input, only fetch their part. A part with a number of rows that is no multiple of 16 keeps
its padding rows, whose outputs nobody reads. Rows are computed independently of each other, so the results are the same
bit for bit. With gradients enabled, where torch.compile or anything else watches the call, with many tokens, and on
backends that do not promise the same bits, each layer computes its own part as if it had not been merged.

The siblings' buffers become views into the merged ones: no weight is stored twice (only the sparse part's derived
index is), and a state dict or a checkpoint holds what it would hold without merging.
"""

from __future__ import annotations

import ctypes
import operator
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from requant_kernels import dispatch, ops
from requant_kernels.formats import SparseWeight
from requant_kernels.formats.tile16 import TILE_ROWS
from requant_kernels.linear import DENSE_BUFFERS, DenseSparseLinear

SIBLINGS = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("query", "key", "value"),
    ("wq", "wk", "wv"),
    ("w1", "w3"),
)
"""Names of children of one module that are called with the same input."""

FORMATS = ("uniform", "lut")
"""Those whose tensors are concatenated tile by tile."""

PATIENCE = 2
"""Calls in a row whose other outputs nobody fetched, after which the siblings are computed one by one: in cross
attention they do not get the same input."""

ABSENT_BIAS = -0.0
"""Of a layer without a bias beside one that has one: unlike 0.0 it changes no number, not even -0.0."""


def merge_linears(model: nn.Module) -> list[tuple[str, ...]]:
    """Merges what can be merged in `model`, in place, and returns the names of the layers of each merged group.

    Siblings are merged if they agree in format, bits, group size, symmetry, dtypes, activations, input features and
    device; others are left alone. Moving a layer to another device, loading another state dict into it or setting its
    activations takes it out of its group; calling this function again merges it anew.
    """
    merged = []
    for name, parent in model.named_modules():
        for children in SIBLINGS:
            present = {child: parent._modules.get(child) for child in children}
            for group in _groups({child: layer for child, layer in present.items() if _is_free(layer)}):
                _merge(list(group.values()))
                merged.append(tuple(f"{name}.{child}".removeprefix(".") for child in group))
    return merged


class MergedPart:
    """What a merged layer knows of its group: `output(buffers, x)`."""

    def __init__(self, group: _Group, position: int, buffers: Mapping[str, Tensor | None]) -> None:
        self._group, self._position = group, position
        self._buffers = tuple(buffers.values())

    def output(self, buffers: Mapping[str, Tensor | None], x: Tensor) -> Tensor | None:
        """This part of the merged output for x, or None if the layer must compute it itself, be it only because
        somebody has put other `buffers` into the layer.
        """
        # Writing to a view of several parts is an error where gradients are recorded, to a layer's output it is not.
        if torch.is_grad_enabled() or not all(map(operator.is_, buffers.values(), self._buffers)):
            return None
        return self._group.output(self._position, x)


class _Unfetched:
    """Outputs of one call that the siblings have not fetched yet. They are good for the very tensor they were computed
    from, as long as nobody writes to it.
    """

    def __init__(self, x: Tensor, outputs: dict[int, Tensor]) -> None:
        self.outputs = outputs
        self._input = id(x)
        self._state = _state(x)

    def belong_to(self, x: Tensor) -> bool:
        return id(x) == self._input and _state(x) == self._state


def _state(x: Tensor) -> int | bytes:
    """What changes when somebody writes to x: its version, or its bytes if it does not count versions."""
    return ctypes.string_at(x.data_ptr(), x.nbytes) if x.is_inference() else x._version


class _Group:
    """Several layers of which the first one that is called computes all.

    What is computed in advance is kept per thread, and no longer than its input lives.
    """

    def __init__(self, layer: DenseSparseLinear, sizes: Sequence[int]) -> None:
        self._layer = layer
        self._rows: list[int] = []  # of each part and of the padding after it, in turns
        for size in sizes:
            self._rows += size, -size % TILE_ROWS
        self._unfetched: dict[int, tuple[_Unfetched, weakref.ref[Tensor]]] = {}
        self._calls_in_vain = 0

    def output(self, position: int, x: Tensor) -> Tensor | None:
        thread = threading.get_ident()
        held = self._unfetched.get(thread)
        if held is not None and held[0].belong_to(x):
            y = held[0].outputs.pop(position, None)
            if y is not None:
                if not held[0].outputs:
                    self._forget(thread)
                    self._calls_in_vain = 0
                return y
        if self._calls_in_vain >= PATIENCE or not x.is_contiguous():
            return None
        if not dispatch.may_be_merged(self._layer.format, x.device.type, x.numel() // x.shape[-1]):
            return None
        y = ops.linear_unchecked(x, self._layer.operands, self._layer.bias, self._layer.activations)
        outputs = dict(enumerate(y.split(self._rows, dim=-1)[::2]))
        mine = outputs.pop(position)
        self._forget(thread)
        self._unfetched[thread] = _Unfetched(x, outputs), weakref.ref(x, lambda _: self._forget(thread))
        return mine

    def _forget(self, thread: int) -> None:
        held = self._unfetched.pop(thread, None)
        if held is not None and held[0].outputs:
            self._calls_in_vain += 1

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin without outputs."""
        return self.__dict__ | {"_unfetched": {}}


def _is_free(layer: nn.Module | None) -> bool:
    """Whether the layer is quantized in a format that can be merged, loaded, and in no group."""
    return (
        isinstance(layer, DenseSparseLinear)
        and layer.format in FORMATS
        and layer.merged is None
        and not layer.codes.is_meta
    )


def _groups(layers: Mapping[str, Any]) -> list[dict[str, DenseSparseLinear]]:
    """Layers that may be merged with each other, at least two in each group."""
    groups: list[dict[str, DenseSparseLinear]] = []
    for name, layer in layers.items():
        for group in groups:
            if all(_fit(layer, other) for other in group.values()):
                group[name] = layer
                break
        else:
            groups.append({name: layer})
    return [group for group in groups if len(group) > 1]


def _fit(a: DenseSparseLinear, b: DenseSparseLinear) -> bool:
    first, second = a.spec, b.spec
    fields = ("format", "bits", "group_size", "symmetric", "table", "scale_dtype", "table_dtype", "activations")
    if a is b or any(getattr(first, field) != getattr(second, field) for field in fields):
        return False
    if a.in_features != b.in_features or a.codes.device != b.codes.device:
        return False
    for name in ("values", "bias"):  # a layer without fits one with any
        mine, theirs = a._buffers[name], b._buffers[name]
        if mine is not None and theirs is not None and mine.dtype != theirs.dtype:
            return False
    return first.table != "shared" or torch.equal(*(each.dense.tensors()["table"] for each in (a, b)))


def _merge(layers: list[DenseSparseLinear]) -> None:
    """Makes one layer of all and turns the buffers of each into views of its."""
    first, tiles = layers[0], [layer.codes.shape[0] for layer in layers]
    shared = ("table",) if first.spec.table == "shared" else ()
    tensors = [
        first._buffers[name] if name in shared else _concatenate([layer._buffers[name] for layer in layers])
        for name in DENSE_BUFFERS[first.format]
    ]
    operands = first.operands._replace(dense=tuple(tensors), out_features=sum(tiles) * TILE_ROWS)
    sparse, bias = _concatenate_sparse(layers), _concatenate_biases(layers)
    whole = DenseSparseLinear(operands.dense_weight, sparse, bias, activations=first.activations)
    group = _Group(whole, [layer.out_features for layer in layers])
    first_tile = first_entry = 0
    for position, layer in enumerate(layers):
        buffers, last_tile = layer._buffers, first_tile + tiles[position]
        last_entry = first_entry + layer.spec.nnz
        for name in ("columns", "values"):
            if (buffer := whole._buffers[name]) is not None and buffers[name] is not None:
                buffers[name] = buffer[first_entry:last_entry]
        for name in DENSE_BUFFERS[first.format]:
            if (buffer := whole._buffers[name]) is not None:
                rows = buffer.shape[0] // sum(tiles)  # per tile: 1, or 16 of a table
                buffers[name] = buffer if name in shared else buffer[first_tile * rows : last_tile * rows]
        if whole.bias is not None and layer.bias is not None:
            buffers["bias"] = whole.bias[first_tile * TILE_ROWS :][: layer.out_features]
        layer.merged = MergedPart(group, position, buffers)
        first_tile, first_entry = last_tile, last_entry


def _concatenate(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Along the tiles; None if there are none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None


def _concatenate_sparse(layers: Sequence[DenseSparseLinear]) -> SparseWeight | None:
    """One CSR matrix, with empty rows for the padding."""
    device, parts = layers[0].codes.device, [layer.sparse for layer in layers]
    columns = _concatenate([None if part is None else part.columns for part in parts])
    values = _concatenate([None if part is None else part.values for part in parts])
    if columns is None or values is None:
        return None
    counts = torch.zeros(sum(layer.codes.shape[0] for layer in layers) * TILE_ROWS, dtype=torch.int32, device=device)
    begin = 0
    for layer, part in zip(layers, parts, strict=True):
        if part is not None:
            counts[begin : begin + layer.out_features] = part.row_offsets.diff()
        begin += layer.codes.shape[0] * TILE_ROWS
    row_offsets = torch.zeros(counts.numel() + 1, dtype=torch.int32, device=device)
    row_offsets[1:] = counts.cumsum(0)
    return SparseWeight(row_offsets, columns, values, layers[0].in_features)


def _concatenate_biases(layers: Sequence[DenseSparseLinear]) -> Tensor | None:
    given = next((layer.bias for layer in layers if layer.bias is not None), None)
    if given is None:
        return None
    merged = given.new_full((sum(layer.codes.shape[0] for layer in layers) * TILE_ROWS,), ABSENT_BIAS)
    begin = 0
    for layer in layers:
        if layer.bias is not None:
            merged[begin : begin + layer.out_features] = layer.bias
        begin += layer.codes.shape[0] * TILE_ROWS
    return merged
