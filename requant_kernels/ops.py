"""Every operator: its schema, its checks, its fake (shape-only) function and its gradient, in one place.

    y = requant::uniform_linear(x, ...)     y = x @ (D + S).T + bias     x [..., in_features] -> y [..., out_features]
    y = requant::lut_linear(x, ...)
    W = requant::dequantize_uniform(...)    W = D + S                    [out_features, in_features]
    W = requant::dequantize_lut(...)

The tensors are those of `requant_kernels.formats`. y has the dtype of x; both parts accumulate in fp32. x and the bias
have gradients, the codes have none. A wrong call raises ValueError that names the argument, what it was and what was
expected. The kernels come from `requant_kernels.dispatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from requant_kernels import dispatch
from requant_kernels.formats import LutWeight, UniformWeight, tile16
from requant_kernels.formats.sparse import VALUE_DTYPES, columns_dtype
from requant_kernels.formats.storage import FLOAT_DTYPES, check
from requant_kernels.formats.uniform import check_group_size

ACTIVATIONS = ("16bit",)

_SPARSE = "Tensor? row_offsets, Tensor? columns, Tensor? values"
_LINEAR = f"{_SPARSE}, Tensor? sparse_index, Tensor? bias, SymInt out_features, int bits, int group_size"
_DEQUANTIZE = f"{_SPARSE}, SymInt out_features, SymInt in_features, int bits, int group_size, ScalarType dtype"
_DENSE = {"uniform": "Tensor codes, Tensor scale, Tensor? zero", "lut": "Tensor codes, Tensor table, Tensor? scale"}
_BIAS_POSITION = 8  # among the operator's arguments, x being 0
SUPPORTED_BITS = {"uniform": UniformWeight.supported_bits, "lut": LutWeight.supported_bits}


def _check_tensor(name: str, tensor: Tensor, shape: tuple[Any, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} must have dtype {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")


class LinearArguments(NamedTuple):
    """The arguments of a linear operator after x. `second` and `third` are (scale, zero) of `uniform` and
    (table, scale) of `lut`.
    """

    codes: Tensor
    second: Tensor
    third: Tensor | None
    row_offsets: Tensor | None
    columns: Tensor | None
    values: Tensor | None
    sparse_index: Tensor | None
    bias: Tensor | None
    out_features: int
    bits: int
    group_size: int
    activations: str = "16bit"


def _check_weight(
    format: str,
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
) -> None:
    """Raises ValueError unless the tensors describe one [out_features, in_features] weight."""
    check("bits", bits, SUPPORTED_BITS[format])
    check_group_size(group_size)
    _check_tensor("codes", codes, tile16.packed_shape(out_features, in_features, bits), (torch.int32,))
    tiles = codes.shape[0]
    groups = (tiles, tile16.group_count(in_features, group_size) * tile16.TILE_ROWS)
    if format == "uniform":
        _check_tensor("scale", second, groups, FLOAT_DTYPES)
        if third is not None:
            _check_tensor("zero", third, groups, (second.dtype,))
    else:
        rows = second.shape[0] if second.ndim == 2 and second.shape[0] == 1 else tiles * tile16.TILE_ROWS
        _check_tensor("table", second, (rows, 2**bits), FLOAT_DTYPES)
        if third is not None:
            _check_tensor("scale", third, groups, FLOAT_DTYPES)
    sparse = (row_offsets, columns, values)
    if any(part is None for part in sparse) and any(part is not None for part in sparse):
        raise ValueError("row_offsets, columns and values must be given together or not at all")
    if row_offsets is not None and columns is not None and values is not None:
        _check_tensor("row_offsets", row_offsets, (out_features + 1,), (torch.int32,))
        _check_tensor("columns", columns, tuple(values.shape[:1]), (columns_dtype(in_features),))
        _check_tensor("values", values, tuple(columns.shape), VALUE_DTYPES)
    for tensor in (second, third, *sparse):
        if tensor is not None and tensor.device != codes.device:
            raise ValueError(f"all tensors must be on the device of codes, {codes.device}, got one on {tensor.device}")


def _check_linear(format: str, x: Tensor, arguments: LinearArguments) -> None:
    """Raises ValueError unless x and the weight fit together."""
    codes, bias = arguments.codes, arguments.bias
    check("x.dtype", x.dtype, FLOAT_DTYPES)
    check("activations", arguments.activations, ACTIVATIONS)
    if x.ndim == 0:
        raise ValueError("x must have at least one dimension, got a scalar")
    if x.device != codes.device:
        raise ValueError(f"x must be on the device of codes, {codes.device}, got {x.device}")
    _check_weight(format, *arguments[:6], arguments.out_features, x.shape[-1], arguments.bits, arguments.group_size)
    if bias is not None:
        _check_tensor("bias", bias, (arguments.out_features,), FLOAT_DTYPES)


def _define(format: str) -> None:
    """Defines the linear and the dequantize operator of one format."""
    linear, dequantize = f"requant::{format}_linear", f"requant::dequantize_{format}"
    torch.library.define(linear, f'(Tensor x, {_DENSE[format]}, {_LINEAR}, str activations="16bit") -> Tensor')
    torch.library.define(dequantize, f"({_DENSE[format]}, {_DEQUANTIZE}) -> Tensor")

    @torch.library.impl(linear, "CompositeExplicitAutograd")
    def run_linear(x: Tensor, *args: Any) -> Tensor:
        arguments = LinearArguments(*args)
        _check_linear(format, x, arguments)
        with _no_autocast(x):
            return linear_unchecked(format, x, LinearArguments(*_contiguous(arguments)))

    @torch.library.register_fake(linear)
    def fake_linear(x: Tensor, *args: Any) -> Tensor:
        arguments = LinearArguments(*args)
        _check_linear(format, x, arguments)
        return x.new_empty((*x.shape[:-1], arguments.out_features))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, arguments = inputs[0], LinearArguments(*inputs[1:])
        ctx.save_for_backward(*arguments[:6])
        ctx.geometry = (arguments.out_features, x.shape[-1], arguments.bits, arguments.group_size, x.dtype)
        ctx.bias_dtype = None if arguments.bias is None else arguments.bias.dtype
        ctx.arguments_without_gradient = len(inputs) - _BIAS_POSITION - 1

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            weight = getattr(torch.ops.requant, f"dequantize_{format}")(*ctx.saved_tensors, *ctx.geometry)
            grad_x = grad @ weight
        if ctx.needs_input_grad[_BIAS_POSITION]:
            grad_bias = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        before, after = (None,) * (_BIAS_POSITION - 1), (None,) * ctx.arguments_without_gradient
        return grad_x, *before, grad_bias, *after

    torch.library.register_autograd(linear, backward, setup_context=setup_context)

    @torch.library.impl(dequantize, "CompositeExplicitAutograd")
    def run_dequantize(*args: Any) -> Tensor:
        *weight, dtype = args
        _check_weight(format, *weight)
        check("dtype", dtype, FLOAT_DTYPES)
        kernel = dispatch.dequantize_kernel_for(format, args[0].device.type)
        with _no_autocast(args[0]):
            return kernel(*_contiguous(args))

    @torch.library.register_fake(dequantize)
    def fake_dequantize(*args: Any) -> Tensor:
        *weight, dtype = args
        _check_weight(format, *weight)
        codes, out_features, in_features = args[0], args[6], args[7]
        return codes.new_empty((out_features, in_features), dtype=dtype)


def _contiguous(args: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    """Kernels compute in the dtype they are given: a matrix product inside one must not be cast again."""
    return torch.autocast(tensor.device.type, enabled=False)


def linear_unchecked(format: str, x: Tensor, arguments: LinearArguments) -> Tensor:
    """The linear operator past its checks, for a caller whose arguments are right and contiguous by construction. x may
    have any leading dimensions, no tokens, and any strides.
    """
    bias = arguments.bias
    if bias is not None and bias.dtype not in (x.dtype, torch.float32):
        arguments = arguments._replace(bias=bias.float())
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    if rows.shape[0] == 0:
        y = x.new_empty((0, arguments.out_features))
    else:
        y = dispatch.kernel_for(format, x.device.type, rows.shape[0])(rows, *arguments)
    return y.view(*x.shape[:-1], arguments.out_features)


for _format in _DENSE:
    _define(_format)
