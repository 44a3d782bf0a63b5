"""The CUDA backend: registers the kernels of the extension `requant_kernels._cuda`.

`fused` (up to 64 tokens of fp16 or bf16) decodes weights in registers and multiplies as they stream in. `prefill` (any
number of tokens) makes slices of rows of D + S in a bounded scratch, each used at once by torch's matrix product. fp32
inputs, and bf16 ones on devices without bf16 products, go to prefill whatever their number.

A call runs on the current stream of x's device and waits for nothing. It allocates with torch.empty alone, so torch's
caching allocator owns all memory and a CUDA graph may capture the call. (Without a sparse index made at load,
`prepare_sparse` has to wait for the device: DenseSparseLinear makes one.)
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from importlib import resources
from types import ModuleType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from requant_kernels.backends import reference
from requant_kernels.backends.native import DTYPES, address, dtype_number, native_weight
from requant_kernels.backends.sparse_tiles import INDEX_DTYPE, prepare_sparse
from requant_kernels.dispatch import Backend, Kernel
from requant_kernels.formats import tile16, trellis
from requant_kernels.operands import WeightOperands

SCRATCH_BYTES = 64 << 20
"""Of decoded rows in prefill, at most."""

FIRST_CAPABILITY = {torch.float16: 75, torch.bfloat16: 80}
"""The compute capability, 10 * major + minor, from which on there are fused kernels for inputs of a dtype."""

VECTOR_BYTES = 16
"""Kernels load so many bytes at once."""


class Launch(NamedTuple):
    """Where and how the extension launches."""

    stream: int
    multiprocessors: int
    capability: int
    """10 * major + minor of the device's compute capability."""


class Devices(Protocol):
    """The devices that an extension's kernels run on."""

    def launch(self, device: torch.device) -> Launch:
        """On the device's current stream."""

    def running(
        self, device: torch.device, reads: Iterable[Tensor | None], writes: Iterable[Tensor]
    ) -> AbstractContextManager[object]:
        """Makes the device the current one while kernels are launched that read and write these tensors."""


class CudaDevices:
    """torch's CUDA devices."""

    def launch(self, device: torch.device) -> Launch:
        """On the device's current stream. Raises RuntimeError if the kernels were not compiled for the device."""
        return Launch(torch.cuda.current_stream(device).cuda_stream, *_properties(device))

    def running(
        self, device: torch.device, reads: Iterable[Tensor | None], writes: Iterable[Tensor]
    ) -> AbstractContextManager[object]:
        """Makes the device the current one."""
        return torch.cuda.device(device)


@functools.cache
def _properties(device: torch.device) -> tuple[int, int]:
    """(multiprocessors, capability), once per device."""
    properties = torch.cuda.get_device_properties(device)
    capability = 10 * properties.major + properties.minor
    if not covers(architectures(), capability):
        raise RuntimeError(
            f"requant_kernels._cuda was compiled for compute capabilities {', '.join(architectures())}, but {device} "
            f"has {capability}: install again with REQUANT_CUDA=1 REQUANT_CUDA_ARCHS={capability}"
        )
    return properties.multi_processor_count, capability


def covers(compiled: Iterable[str], capability: int) -> bool:
    """Whether kernels compiled for these architectures (as in REQUANT_CUDA_ARCHS) run on such a device: machine code
    runs from its own capability up to the end of its generation, PTX on everything newer.
    """
    for architecture in compiled:
        number = int(architecture.removesuffix("+PTX"))
        if number <= capability and (architecture.endswith("+PTX") or number // 10 == capability // 10):
            return True
    return False


class CudaKernels:
    """The kernels of one extension on its devices."""

    def __init__(self, extension: ModuleType, devices: Devices) -> None:
        self._extension = extension
        self._devices = devices

    def fused(self, x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
        """The kernel for a few tokens."""
        launch = self._devices.launch(x.device)
        if launch.capability < FIRST_CAPABILITY.get(x.dtype, launch.capability + 1):
            prefill = self.trellis_prefill if weight.format == "trellis" else self.prefill
            return prefill(x, weight, bias, activations)
        weight, x = _prepared(weight), _aligned(x)
        native = native_weight(self._extension, weight)
        tokens = x.numel() // weight.in_features
        y = x.new_empty((*x.shape[:-1], weight.out_features))
        workspace = x.new_empty(self._extension.workspace_bytes(native, tokens, *launch), dtype=torch.uint8)
        with self._devices.running(x.device, (x, bias, *_tensors(weight)), (y, workspace)):
            self._extension.linear(
                native,
                x.data_ptr(),
                DTYPES[x.dtype],
                tokens,
                address(bias),
                dtype_number(bias),
                y.data_ptr(),
                workspace.data_ptr(),
                *launch,
            )
        return y

    def prefill(self, x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
        """The kernel for many tokens: slices of rows of W, each used at once by torch's matrix product."""
        weight = _prepared(weight)
        out_features, in_features = weight.out_features, weight.in_features
        inputs = x.view(-1, in_features)
        y = x.new_empty((inputs.shape[0], out_features))
        bias = None if bias is None else bias.to(x.dtype)
        for begin, slice in _slices(y, in_features):
            end = begin + slice.shape[0]
            self._dequantize_rows(weight, begin, end, slice)
            if bias is None:
                torch.mm(inputs, slice.T, out=y[:, begin:end])
            else:
                torch.addmm(bias[begin:end], inputs, slice.T, out=y[:, begin:end])
        return y.view(*x.shape[:-1], out_features)

    def dequantize(self, weight: WeightOperands, dtype: torch.dtype) -> Tensor:
        """The kernel that makes all of W."""
        w = weight.codes.new_empty((weight.out_features, weight.in_features), dtype=dtype)
        self._dequantize_rows(_prepared(weight), 0, weight.out_features, w)
        return w

    def trellis_prefill(self, x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
        """The kernel of format trellis for many tokens: slices of rows of C, each used at once by torch's matrix
        product, between the rotations of inputs and outputs. Rotated inputs and products are fp16, every token over a
        power of two of its own.
        """
        if x.dtype == torch.float32:
            return reference.linear(x, weight, bias, activations)
        weight = _prepared(weight)
        launch, native = self._devices.launch(x.device), native_weight(self._extension, weight)
        out_padded, in_padded = trellis.padded_shape(weight.out_features, weight.in_features)
        inputs = x.view(-1, weight.in_features)
        tokens = inputs.shape[0]
        rotated = x.new_empty((tokens, in_padded), dtype=torch.float16)
        factors = x.new_empty(tokens, dtype=torch.float32)
        with self._devices.running(x.device, (x, *_tensors(weight)), (rotated, factors)):
            self._extension.trellis_rotate_inputs(
                native,
                x.data_ptr(),
                DTYPES[x.dtype],
                tokens,
                rotated.data_ptr(),
                factors.data_ptr(),
                *launch,
            )
        products = x.new_empty((tokens, out_padded), dtype=torch.float16)
        codes, _, *rest = weight.dense
        unscaled = weight._replace(dense=(codes, None, *rest))
        for begin, slice in _slices(products, in_padded):
            self._dequantize_rows(unscaled, begin, begin + slice.shape[0], slice)
            torch.mm(rotated, slice.T, out=products[:, begin : begin + slice.shape[0]])
        sums = self._sparse_products(inputs, weight)
        y = x.new_empty((*x.shape[:-1], weight.out_features))
        with self._devices.running(x.device, (products, factors, sums, bias, *_tensors(weight)), (y,)):
            self._extension.trellis_finish_outputs(
                native,
                products.data_ptr(),
                factors.data_ptr(),
                address(sums),
                tokens,
                address(bias),
                dtype_number(bias),
                y.data_ptr(),
                DTYPES[y.dtype],
                *launch,
            )
        return y

    def _sparse_products(self, inputs: Tensor, weight: WeightOperands) -> Tensor | None:
        """inputs @ S.T of a weight of format trellis, fp32 [tokens, out_features padded to 16], or None without S."""
        if weight.sparse_index is None:
            return None
        tokens = inputs.shape[0]
        transposed = torch.nn.functional.pad(inputs.T, (0, tokens % 2)).contiguous()
        out_padded, _ = trellis.padded_shape(weight.out_features, weight.in_features)
        sums = inputs.new_empty((tokens, out_padded), dtype=torch.float32)
        with self._devices.running(inputs.device, (transposed, weight.sparse_index), (sums,)):
            self._extension.trellis_sparse_products(
                native_weight(self._extension, weight),
                transposed.data_ptr(),
                DTYPES[inputs.dtype],
                tokens,
                transposed.shape[1],
                sums.data_ptr(),
                *self._devices.launch(inputs.device),
            )
        return sums

    def trellis_dequantize(self, weight: WeightOperands, dtype: torch.dtype) -> Tensor:
        """The kernel of format trellis that makes all of W. It rounds values of C to fp16: fp32 is the reference's."""
        if dtype == torch.float32:
            return reference.dequantize(weight, dtype)
        _, _, input_signs, output_signs, _ = weight.dense
        assert input_signs is not None
        assert output_signs is not None
        rotated = torch.empty(trellis.padded_shape(weight.out_features, weight.in_features), device=weight.codes.device)
        self._dequantize_rows(weight, 0, rotated.shape[0], rotated)
        dense, sparse = trellis.rotate_back(rotated, input_signs, output_signs), weight.sparse_weight
        return (dense if sparse is None else dense + sparse.to_dense()).to(dtype)

    def _dequantize_rows(self, weight: WeightOperands, begin: int, end: int, w: Tensor) -> None:
        """Rows begin ..< end of W into w [end - begin, in_features]; begin is a multiple of 16."""
        native = native_weight(self._extension, weight)
        launch = self._devices.launch(w.device)
        with self._devices.running(w.device, _tensors(weight), (w,)):
            self._extension.dequantize(native, begin, end, w.data_ptr(), DTYPES[w.dtype], *launch)

    def table(self) -> dict[tuple[str, str], Kernel]:
        """(format, phase) -> kernel."""
        phases: dict[str, Kernel] = {"fused": self.fused, "prefill": self.prefill, "dequantize": self.dequantize}
        return {
            **{(format, phase): kernel for format in ("uniform", "lut") for phase, kernel in phases.items()},
            ("trellis", "fused"): self.fused,
            ("trellis", "prefill"): self.trellis_prefill,
            ("trellis", "dequantize"): self.trellis_dequantize,
            ("uniform", "embedding"): reference.embedding,
        }


def _tensors(weight: WeightOperands) -> tuple[Tensor | None, ...]:
    """What kernels read of a weight."""
    return *weight.dense, weight.sparse_index


def _slices(products: Tensor, inputs: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, scratch [rows, inputs]) for products [tokens, rows] slice by slice, in one scratch of their dtype."""
    out_features = products.shape[1]
    tiles = max(SCRATCH_BYTES // (tile16.TILE_ROWS * inputs * products.itemsize), 1)
    rows = min(tiles * tile16.TILE_ROWS, out_features)
    scratch = products.new_empty((rows, inputs))
    for begin in range(0, out_features, rows):
        yield begin, scratch[: min(rows, out_features - begin)]


def _aligned(tensor: Tensor) -> Tensor:
    """At an address that vector loads accept: a view into another tensor may start anywhere."""
    return tensor.clone() if tensor.data_ptr() % VECTOR_BYTES else tensor


def _prepared(weight: WeightOperands) -> WeightOperands:
    """With codes and tables where vector loads accept them, and with a sparse index: the one that came with the call,
    unless another backend made it, or one made for it.
    """
    weight = weight._replace(dense=tuple(None if tensor is None else _aligned(tensor) for tensor in weight.dense))
    row_offsets, columns, values, index = weight.row_offsets, weight.columns, weight.values, weight.sparse_index
    if row_offsets is None or columns is None or values is None or (index is not None and index.dtype == INDEX_DTYPE):
        return weight
    index = prepare_sparse(row_offsets, columns, values, weight.out_features, weight.in_features)
    return weight._replace(sparse_index=index)


def architectures() -> tuple[str, ...]:
    """What the extension was compiled for, as in REQUANT_CUDA_ARCHS; nothing if there is no extension."""
    return () if _extension is None else tuple(_extension.architectures().split())


def _load() -> tuple[ModuleType | None, str | None]:
    """(the extension, None) or (None or the extension, why it is of no use)."""
    try:
        from requant_kernels import _cuda
    except ImportError as error:
        note = resources.files("requant_kernels") / "cuda_missing.txt"
        if note.is_file():
            reason = note.read_text(encoding="utf-8").strip()
        elif importlib.util.find_spec("requant_kernels._cuda") is None:
            reason = "it was not built; installing with REQUANT_CUDA=1 builds it"
        else:
            reason = str(error)
        return None, f"the extension requant_kernels._cuda is missing ({reason})"
    if torch.version.hip is not None:
        return _cuda, "this torch is built for AMD GPUs"
    if torch.cuda.device_count() == 0:
        return _cuda, "torch sees no NVIDIA GPU"
    return _cuda, None


_extension, _unavailable_reason = _load()

BACKEND = Backend(
    name="cuda",
    unavailable_reason=_unavailable_reason,
    devices=("cuda",),
    kernels={} if _extension is None else CudaKernels(_extension, CudaDevices()).table(),
    prepare_sparse=prepare_sparse,
    architecture=lambda device: f"sm_{_properties(device)[1]}",
)
