"""DenseSparseLinear: the drop-in layer, y = x @ (D + S).T + bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from requant_kernels import dispatch, ops
from requant_kernels.formats import (
    DenseWeight,
    LayerSpec,
    LutWeight,
    SparseWeight,
    TrellisWeight,
    UniformWeight,
    trellis,
)
from requant_kernels.formats.activations import ACTIVATIONS
from requant_kernels.formats.rounding import SHARED_TABLES, round_to_quantiles, round_to_shared_table, round_uniform
from requant_kernels.formats.spec import dtype_name
from requant_kernels.formats.storage import FLOAT_DTYPES, bits_per_weight, check
from requant_kernels.memory import place
from requant_kernels.operands import WeightOperands
from requant_kernels.trellis_encoder import round_to_trellis

if TYPE_CHECKING:
    from requant_kernels.merge import MergedPart

DENSE_BUFFERS = {
    "uniform": ("codes", "scale", "zero"),
    "lut": ("codes", "table", "scale"),
    "trellis": ("codes", "scale", "input_signs", "output_signs", "codebook"),
}
"""Buffers of the dense part in the order of the operator's arguments, by format."""

_SPARSE_BUFFERS = ("row_offsets", "columns", "values")
_BUFFERS = (*dict.fromkeys(name for names in DENSE_BUFFERS.values() for name in names), *_SPARSE_BUFFERS, "bias")


class DenseSparseLinear(nn.Module):
    """A quantized nn.Linear. Its state-dict keys are the operator's argument names: codes, scale, zero, table,
    input_signs, output_signs, codebook, row_offsets, columns, values, bias; absent where a layer has none.

    Input x [..., in_features] of fp32, fp16 or bf16, any leading dimensions (also no tokens), any strides; output
    [..., out_features] of the same dtype. Moving the module to a dtype does not touch its buffers.
    """

    format: str
    bits: int
    group_size: int
    code: str | None
    in_features: int
    out_features: int
    outliers: int
    significant: int
    codes: Tensor
    bias: Tensor | None
    _activations: str = ACTIVATIONS[0]
    merged: MergedPart | None = None
    """Where `merge_linears` left the means to compute this layer together with its siblings."""

    def __init__(
        self,
        dense: DenseWeight,
        sparse: SparseWeight | None = None,
        bias: Tensor | None = None,
        *,
        outliers: int = 0,
        significant: int = 0,
        activations: str = ACTIVATIONS[0],
    ) -> None:
        """`outliers` and `significant` tell how many entries of `sparse` were kept for which reason; `activations`
        whether x may be rounded to 8 bits ("int8", see `formats.activations`) or not ("16bit").

        Raises ValueError if the parts do not belong together.
        """
        if sparse is not None:
            if (sparse.out_features, sparse.in_features) != (dense.out_features, dense.in_features):
                raise ValueError(
                    f"sparse must have the shape of dense, {[dense.out_features, dense.in_features]}, "
                    f"got {[sparse.out_features, sparse.in_features]}"
                )
            sparse.validate()
        if bias is not None and bias.shape != (dense.out_features,):
            raise ValueError(f"bias must have shape [{dense.out_features}], got {list(bias.shape)}")
        tensors = dense.tensors() | (sparse.tensors() if sparse is not None and sparse.nnz else {})
        if bias is not None:
            tensors["bias"] = bias.detach()
        super().__init__()
        self._set_geometry(dense.format, dense.bits, dense.group_size, (dense.out_features, dense.in_features))
        self.code = dense.code if isinstance(dense, TrellisWeight) else None
        self.outliers, self.significant = outliers, significant
        self.activations = activations
        self._set_buffers(tensors)
        self.prepare()

    @classmethod
    def from_spec(
        cls, spec: LayerSpec, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Self:
        """An empty layer whose buffers have the shapes and dtypes that `spec` foretells, to be filled by a loader,
        which calls `prepare()` afterwards. `dtype` is the bias's.
        """
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module._set_geometry(spec.format, spec.bits, spec.group_size, spec.shape)
        module.code = spec.code
        module.outliers, module.significant = spec.outliers, spec.significant
        module.activations = spec.activations
        expected = spec.tensors()
        if spec.bias:
            expected["bias"] = ((spec.shape[0],), dtype)
        module._set_buffers(
            {name: torch.empty(shape, dtype=dtype, device=device) for name, (shape, dtype) in expected.items()}
        )
        return module

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        format: str = "uniform",
        bits: int = 4,
        group_size: int | None = None,
        sparse_percent: float = 0.5,
        symmetric: bool = False,
        table: str = "row",
        code: str = "1mad",
        activations: str = ACTIVATIONS[0],
    ) -> DenseSparseLinear:
        """The quick way, for tests and benchmarks: round to nearest (uniform), tables at quantiles of each row
        (lut, table="row") or NF4 / FP4 (lut, table="nf4" or "fp4"), or the trellis encoder (trellis, code="1mad",
        "3inst" or "hyb"), and the largest residuals kept in 16 bits.

        group_size None means 128 for uniform and the shared tables; tables per row and trellises have no groups. Raises
        RuntimeError if the format is trellis and the C++ extension is missing.
        """
        check("format", format, DENSE_BUFFERS)
        check("table", table, ("row", *SHARED_TABLES))
        check("code", code, trellis.CODES)
        weight = linear.weight.detach().float()
        dense: DenseWeight
        if format == "uniform":
            dense = round_uniform(weight, bits=bits, group_size=group_size or 128, symmetric=symmetric)
        elif format == "trellis":
            dense = round_to_trellis(weight, bits=bits, code=code)
        elif table == "row":
            dense = round_to_quantiles(weight, bits=bits)
        else:
            check("bits", bits, (4,))
            dense = round_to_shared_table(weight, table=table, group_size=group_size or 128)
        residual = weight - dense.dequantize()
        kept = round(weight.numel() * sparse_percent / 100)
        mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
        mask[residual.abs().flatten().topk(kept).indices] = True
        sparse = SparseWeight.from_dense(residual, mask.view_as(weight)) if kept else None
        return cls(dense, sparse, linear.bias, outliers=kept, activations=activations)

    def _set_geometry(self, format: str, bits: int, group_size: int, shape: tuple[int, int]) -> None:
        self.format, self.bits, self.group_size = format, bits, group_size
        self.out_features, self.in_features = shape

    def _set_buffers(self, tensors: dict[str, Tensor]) -> None:
        for name in _BUFFERS:
            self.register_buffer(name, tensors.get(name))
        self.register_buffer("sparse_index", None, persistent=False)
        self.register_load_state_dict_post_hook(_prepare_after_loading)

    def prepare(self) -> None:
        """Puts every buffer at a good address (`requant_kernels.memory`) and derives what the backend wants from the
        sparse part. Whoever fills or replaces buffers from outside calls this afterwards. Ends being merged.
        """
        self.merged = None
        buffers = self._buffers
        for name, buffer in buffers.items():
            if buffer is not None:
                buffers[name] = place(buffer)
        sparse = self.sparse
        derive = None if sparse is None else dispatch.backend_for(self.codes.device.type).prepare_sparse
        if sparse is not None and derive is not None and not self.codes.is_meta:
            buffers["sparse_index"] = derive(
                sparse.row_offsets, sparse.columns, sparse.values, self.out_features, self.in_features
            )
        else:
            buffers["sparse_index"] = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DenseSparseLinear:
        changed = False
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
                changed |= self._buffers[name] is not buffer
        if changed:
            self.prepare()
        return self

    @property
    def activations(self) -> str:
        """What the layer may do with its inputs, one of `formats.activations.ACTIVATIONS`. Setting it ends being merged
        and raises ValueError for another value.
        """
        return self._activations

    @activations.setter
    def activations(self, activations: str) -> None:
        check("activations", activations, ACTIVATIONS)
        self._activations = activations
        self.merged = None

    @property
    def operands(self) -> WeightOperands:
        """D + S as kernels receive it, over this layer's buffers."""
        buffers: dict[str, Any] = self._buffers
        return WeightOperands(
            self.format,
            tuple(buffers[name] for name in DENSE_BUFFERS[self.format]),
            buffers["row_offsets"],
            buffers["columns"],
            buffers["values"],
            buffers["sparse_index"],
            self.out_features,
            self.in_features,
            (self.bits, self.group_size if self.code is None else self.code),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., out_features] of the same dtype."""
        buffers: dict[str, Any] = self._buffers
        if _may_bypass_the_operator(x):
            # Not self.codes: nn.Module looks attributes up in vain before it looks among the buffers.
            if (
                x.shape[-1:] != (self.in_features,)
                or x.dtype not in FLOAT_DTYPES
                or x.device != buffers["codes"].device
            ):
                self._refuse(x)
            if self.merged is not None and (y := self.merged.output(buffers, x)) is not None:
                return y
            return ops.linear_unchecked(x, self.operands, buffers["bias"], self._activations)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if x.shape[-1:] != (self.in_features,):
            self._refuse(x)
        arguments = self.operands.linear_arguments(buffers["bias"], self._activations)
        return ops.linear_operator(self.format)(x, *arguments)

    def _refuse(self, x: Tensor) -> None:
        raise ValueError(
            f"x must be fp32, fp16 or bf16 of shape [..., {self.in_features}] on {self.codes.device}, "
            f"got {x.dtype} of shape {list(x.shape)} on {x.device}"
        )

    @property
    def dense(self) -> DenseWeight:
        """The dense part, over this layer's buffers."""
        return self.operands.dense_weight

    @property
    def sparse(self) -> SparseWeight | None:
        """The sparse part, over this layer's buffers."""
        return self.operands.sparse_weight

    @property
    def spec(self) -> LayerSpec:
        """What a checkpoint must know of this layer before reading it."""
        dense, sparse = self.dense, self.sparse
        return LayerSpec(
            format=self.format,
            bits=self.bits,
            group_size=self.group_size,
            symmetric=isinstance(dense, UniformWeight) and dense.zero is None,
            table=("shared" if dense.shared_table else "row") if isinstance(dense, LutWeight) else None,
            shape=(self.out_features, self.in_features),
            nnz=0 if sparse is None else sparse.nnz,
            outliers=self.outliers,
            significant=self.significant,
            scale_dtype=None if dense.scale is None else dtype_name(dense.scale.dtype),
            table_dtype=dtype_name(dense.table.dtype) if isinstance(dense, LutWeight) else None,
            values_dtype=None if sparse is None else dtype_name(sparse.values.dtype),
            columns_dtype=None if sparse is None else dtype_name(sparse.columns.dtype),
            bias=self.bias is not None,
            code=self.code,
            activations=self.activations,
        )

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """D + S, [out_features, in_features]."""
        return ops.dequantize_operator(self.format)(*self.operands.dequantize_arguments(dtype))

    @property
    def stored_bytes(self) -> int:
        """Bytes of every stored tensor but the bias."""
        return self.dense.stored_bytes + (0 if self.sparse is None else self.sparse.stored_bytes)

    @property
    def true_bits(self) -> float:
        """Stored bits per weight, with padding, scales, tables and the sparse part."""
        return bits_per_weight(self.stored_bytes, self.out_features, self.in_features)

    @property
    def paper_bits(self) -> float:
        """Bits per weight in arXiv 2503.01901's accounting: 48 per sparse entry, tables and row offsets not counted."""
        return self.dense.paper_bits + (0.0 if self.sparse is None else self.sparse.paper_bits)

    def extra_repr(self) -> str:
        """Geometry, format and share of sparse entries."""
        entries = 0 if self.sparse is None else self.sparse.nnz
        sparse_percent = 100 * entries / (self.out_features * self.in_features)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, format={self.format}, "
            f"bits={self.bits}, group_size={self.group_size}, sparse={sparse_percent:.2f} %, "
            f"bias={self.bias is not None}, activations={self.activations}"
        )


def set_activations(model: nn.Module, activations: str) -> None:
    """Lets all quantized linear layers of `model` round their inputs to 8 bits ("int8") or not ("16bit").

    If the model has a quantization config, that says so too, and so do checkpoints saved from then on. Layers that were
    merged are so no longer. Raises ValueError for another value.
    """
    check("activations", activations, ACTIVATIONS)
    checkpoint = getattr(getattr(getattr(model, "config", None), "quantization_config", None), "checkpoint", None)
    for name, layer in model.named_modules():
        if isinstance(layer, DenseSparseLinear):
            layer.activations = activations
            if checkpoint is not None and name in checkpoint.modules:
                checkpoint.modules[name] = layer.spec


def _prepare_after_loading(module: nn.Module, _incompatible_keys: Any) -> None:
    if isinstance(module, DenseSparseLinear):
        module.prepare()


def _may_bypass_the_operator(x: Tensor) -> bool:
    """Whether nothing is watching this call, so that the kernel may be called without the dispatcher's overhead."""
    return (
        type(x) is Tensor
        and not torch.compiler.is_compiling()
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch._C._is_any_autocast_enabled()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch._C._get_tracing_state() is None
    )
