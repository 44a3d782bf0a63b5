"""Every operator: its schema, its checks, its fake (shape-only) function and its gradient, in one place.

    y = requant::uniform_linear(x, ...)     y = x @ (D + S).T + bias     x [..., in_features] -> y [..., out_features]
    y = requant::lut_linear(x, ...)
    W = requant::dequantize_uniform(...)    W = D + S                    [out_features, in_features]
    W = requant::dequantize_lut(...)
    (and trellis_linear, dequantize_trellis)
    y = requant::uniform_embedding(...)     y = W[indices]               indices [...] -> y [..., in_features]

The tensors are those of `requant_kernels.formats`. y has the dtype of x; both parts accumulate in fp32. x and the bias
have gradients, the codes have none. A wrong call raises ValueError that names the argument, what it was and what was
expected. `activations` is one of `formats.activations.ACTIVATIONS`. The kernels come from `requant_kernels.dispatch`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from requant_kernels import dispatch
from requant_kernels.formats import DENSE_FORMATS, tile16, trellis
from requant_kernels.formats.activations import ACTIVATIONS
from requant_kernels.formats.sparse import VALUE_DTYPES, columns_dtype
from requant_kernels.formats.storage import FLOAT_DTYPES, check
from requant_kernels.formats.uniform import check_group_size
from requant_kernels.operands import WeightOperands

_SPARSE = ("Tensor? row_offsets", "Tensor? columns", "Tensor? values")


class Schema(NamedTuple):
    """The arguments that differ between formats, as torch.library declares them."""

    dense: tuple[str, ...]
    """Tensors of D, codes first."""
    parameters: tuple[str, ...]

    @property
    def linear(self) -> str:
        """Of the linear operator."""
        sparse = (*_SPARSE, "Tensor? sparse_index", "Tensor? bias", "SymInt out_features")
        arguments = ("Tensor x", *self.dense, *sparse, *self.parameters, 'str activations="16bit"')
        return f"({', '.join(arguments)}) -> Tensor"

    @property
    def dequantize(self) -> str:
        """Of the operator that makes W."""
        sizes = ("SymInt out_features", "SymInt in_features")
        return f"({', '.join((*self.dense, *_SPARSE, *sizes, *self.parameters, 'ScalarType dtype'))}) -> Tensor"

    @property
    def bias_position(self) -> int:
        """Of the bias among the linear operator's arguments, x being 0."""
        return len(self.dense) + len(_SPARSE) + 2


SCHEMAS = {
    "uniform": Schema(("Tensor codes", "Tensor scale", "Tensor? zero"), ("int bits", "int group_size")),
    "lut": Schema(("Tensor codes", "Tensor table", "Tensor? scale"), ("int bits", "int group_size")),
    "trellis": Schema(
        ("Tensor codes", "Tensor scale", "Tensor input_signs", "Tensor output_signs", "Tensor? codebook"),
        ("int bits", "str code"),
    ),
}


class LinearOperands(NamedTuple):
    """The arguments of a linear operator, sorted."""

    x: Tensor
    weight: WeightOperands
    bias: Tensor | None
    activations: str

    @classmethod
    def sort(cls, format: str, x: Tensor, *args: Any) -> LinearOperands:
        """`args` are the operator's, in the order of its schema."""
        dense, rest = args[: len(SCHEMAS[format].dense)], args[len(SCHEMAS[format].dense) :]
        row_offsets, columns, values, sparse_index, bias, out_features, *parameters = rest
        activations = parameters.pop() if len(parameters) > len(SCHEMAS[format].parameters) else ACTIVATIONS[0]
        in_features = x.shape[-1] if x.ndim else 0
        sparse = (row_offsets, columns, values, sparse_index)
        return cls(
            x, WeightOperands(format, dense, *sparse, out_features, in_features, tuple(parameters)), bias, activations
        )


def _sort_dequantize(format: str, *args: Any) -> tuple[WeightOperands, torch.dtype]:
    """The arguments of a dequantize operator, sorted."""
    dense, rest = args[: len(SCHEMAS[format].dense)], args[len(SCHEMAS[format].dense) : -1]
    row_offsets, columns, values, *sizes_and_parameters = rest
    (out_features, in_features), parameters = sizes_and_parameters[:2], tuple(sizes_and_parameters[2:])
    sparse = (row_offsets, columns, values, None)
    return WeightOperands(format, dense, *sparse, out_features, in_features, parameters), args[-1]


def _check_tensor(name: str, tensor: Tensor, shape: tuple[Any, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} must have dtype {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")


def _check_tile16(weight: WeightOperands) -> tuple[int, tuple[int, int]]:
    """Checks codes, bits and group_size; returns the number of tiles and the shape of values per group."""
    bits, group_size = weight.parameters
    check("bits", bits, DENSE_FORMATS[weight.format].supported_bits)
    check_group_size(group_size)
    codes = weight.codes
    _check_tensor("codes", codes, tile16.packed_shape(weight.out_features, weight.in_features, bits), (torch.int32,))
    tiles = codes.shape[0]
    return tiles, (tiles, tile16.group_count(weight.in_features, group_size) * tile16.TILE_ROWS)


def _check_uniform(weight: WeightOperands) -> None:
    _, scale, zero = weight.dense
    assert scale is not None
    _, groups = _check_tile16(weight)
    _check_tensor("scale", scale, groups, FLOAT_DTYPES)
    if zero is not None:
        _check_tensor("zero", zero, groups, (scale.dtype,))


def _check_lut(weight: WeightOperands) -> None:
    _, table, scale = weight.dense
    assert table is not None
    tiles, groups = _check_tile16(weight)
    rows = 1 if table.ndim == 2 and table.shape[0] == 1 else tiles * tile16.TILE_ROWS
    _check_tensor("table", table, (rows, 2 ** weight.parameters[0]), FLOAT_DTYPES)
    if scale is not None:
        _check_tensor("scale", scale, groups, FLOAT_DTYPES)


def _check_trellis(weight: WeightOperands) -> None:
    codes, (_, scale, input_signs, output_signs, codebook) = weight.codes, weight.dense
    assert scale is not None
    assert input_signs is not None
    assert output_signs is not None
    bits, code = weight.parameters
    check("bits", bits, DENSE_FORMATS[weight.format].supported_bits)
    check("code", code, trellis.CODES)
    _check_tensor("codes", codes, trellis.packed_shape(weight.out_features, weight.in_features, bits), (torch.int32,))
    _check_tensor("scale", scale, (codes.shape[0], trellis.TILE), FLOAT_DTYPES)
    _check_tensor("input_signs", input_signs, (weight.in_features,), (torch.int8,))
    _check_tensor("output_signs", output_signs, (weight.out_features,), (torch.int8,))
    if (codebook is not None) != (code == "hyb"):
        raise ValueError(f"codebook must be given for code hyb and for no other, got code {code}")
    if codebook is not None:
        _check_tensor("codebook", codebook, trellis.CODEBOOK_SHAPE, (torch.float32,))


_CHECKS = {"uniform": _check_uniform, "lut": _check_lut, "trellis": _check_trellis}


def _check_weight(weight: WeightOperands) -> None:
    """Raises ValueError unless the tensors describe one [out_features, in_features] weight."""
    _CHECKS[weight.format](weight)
    row_offsets, columns, values = sparse = (weight.row_offsets, weight.columns, weight.values)
    if any(part is None for part in sparse) and any(part is not None for part in sparse):
        raise ValueError("row_offsets, columns and values must be given together or not at all")
    if row_offsets is not None and columns is not None and values is not None:
        _check_tensor("row_offsets", row_offsets, (weight.out_features + 1,), (torch.int32,))
        _check_tensor("columns", columns, tuple(values.shape[:1]), (columns_dtype(weight.in_features),))
        _check_tensor("values", values, tuple(columns.shape), VALUE_DTYPES)
    device = weight.codes.device
    for tensor in (*weight.dense, *sparse):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"all tensors must be on the device of codes, {device}, got one on {tensor.device}")


def _check_linear(operands: LinearOperands) -> None:
    """Raises ValueError unless x and the weight fit together."""
    x, weight, bias, activations = operands
    check("x.dtype", x.dtype, FLOAT_DTYPES)
    check("activations", activations, ACTIVATIONS)
    if x.ndim == 0:
        raise ValueError("x must have at least one dimension, got a scalar")
    if x.device != weight.codes.device:
        raise ValueError(f"x must be on the device of codes, {weight.codes.device}, got {x.device}")
    _check_weight(weight)
    if bias is not None:
        _check_tensor("bias", bias, (weight.out_features,), FLOAT_DTYPES)


def linear_operator(format: str) -> Any:
    """requant::<format>_linear."""
    return getattr(torch.ops.requant, f"{format}_linear")


def dequantize_operator(format: str) -> Any:
    """requant::dequantize_<format>."""
    return getattr(torch.ops.requant, f"dequantize_{format}")


def _define(format: str, schema: Schema) -> None:
    """Defines the linear and the dequantize operator of one format."""
    linear, dequantize = f"requant::{format}_linear", f"requant::dequantize_{format}"
    torch.library.define(linear, schema.linear)
    torch.library.define(dequantize, schema.dequantize)

    @torch.library.impl(linear, "CompositeExplicitAutograd")
    def run_linear(*args: Any) -> Tensor:
        x, weight, bias, activations = operands = LinearOperands.sort(format, *args)
        _check_linear(operands)
        with _no_autocast(x):
            return linear_unchecked(x, weight.contiguous(), bias, activations)

    @torch.library.register_fake(linear)
    def fake_linear(*args: Any) -> Tensor:
        operands = LinearOperands.sort(format, *args)
        _check_linear(operands)
        return operands.x.new_empty((*operands.x.shape[:-1], operands.weight.out_features))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, _ = LinearOperands.sort(format, *inputs)
        arguments = weight.dequantize_arguments(x.dtype)
        tensors = len(schema.dense) + len(_SPARSE)
        ctx.save_for_backward(*arguments[:tensors])
        ctx.other_arguments = arguments[tensors:]
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.inputs = len(inputs)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * ctx.inputs
        if ctx.needs_input_grad[0]:
            gradients[0] = grad @ dequantize_operator(format)(*ctx.saved_tensors, *ctx.other_arguments)
        if ctx.needs_input_grad[schema.bias_position]:
            gradients[schema.bias_position] = grad.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return tuple(gradients)

    torch.library.register_autograd(linear, backward, setup_context=setup_context)

    @torch.library.impl(dequantize, "CompositeExplicitAutograd")
    def run_dequantize(*args: Any) -> Tensor:
        weight, dtype = _sort_dequantize(format, *args)
        _check_weight(weight)
        check("dtype", dtype, FLOAT_DTYPES)
        kernel = dispatch.dequantize_kernel_for(format, weight.codes.device.type)
        with _no_autocast(weight.codes):
            return kernel(weight.contiguous(), dtype)

    @torch.library.register_fake(dequantize)
    def fake_dequantize(*args: Any) -> Tensor:
        weight, dtype = _sort_dequantize(format, *args)
        _check_weight(weight)
        return weight.codes.new_empty((weight.out_features, weight.in_features), dtype=dtype)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    """Kernels compute in the dtype they are given: a matrix product inside one must not be cast again."""
    return torch.autocast(tensor.device.type, enabled=False)


def linear_unchecked(x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    """The linear operator past its checks, for a caller whose arguments are right and contiguous by construction. x may
    have any leading dimensions, no tokens, and any strides.
    """
    if bias is not None and bias.dtype not in (x.dtype, torch.float32):
        bias = bias.float()
    tokens = x.numel() // weight.in_features
    if tokens == 0:
        return x.new_empty((*x.shape[:-1], weight.out_features))
    return dispatch.kernel_for(weight.format, x.device, tokens)(x.contiguous(), weight, bias, activations)


def _embedding_weight(*args: Any) -> WeightOperands:
    """The arguments of the embedding operator between indices and dtype, sorted and checked."""
    *dense, out_features, in_features, bits, group_size = args
    absent = (None, None, None, None)
    weight = WeightOperands("uniform", tuple(dense), *absent, out_features, in_features, (bits, group_size))
    _check_weight(weight)
    return weight


def _define_embedding() -> None:
    """Defines requant::uniform_embedding: rows of a uniform weight without a sparse part, in `dtype`."""
    name, schema = "requant::uniform_embedding", SCHEMAS["uniform"]
    sizes = ("SymInt out_features", "SymInt in_features")
    arguments = ("Tensor indices", *schema.dense, *sizes, *schema.parameters, "ScalarType dtype")
    torch.library.define(name, f"({', '.join(arguments)}) -> Tensor")

    @torch.library.impl(name, "CompositeExplicitAutograd")
    def run_embedding(indices: Tensor, *args: Any) -> Tensor:
        weight, dtype = _embedding_weight(*args[:-1]), args[-1]
        check("dtype", dtype, FLOAT_DTYPES)
        check("indices.dtype", indices.dtype, (torch.int64, torch.int32))
        if indices.device != weight.codes.device:
            raise ValueError(f"indices must be on the device of codes, {weight.codes.device}, got {indices.device}")
        if indices.numel() == 0:
            return weight.codes.new_empty((*indices.shape, weight.in_features), dtype=dtype)
        if not indices.is_cuda:  # there, the kernel notices: to look would wait for the device
            first, last = map(int, torch.aminmax(indices))
            if first < 0 or last >= weight.out_features:
                raise IndexError(f"indices must lie in 0..{weight.out_features - 1}, found {first}..{last}")
        kernel = dispatch.embedding_kernel_for("uniform", indices.device.type)
        rows = kernel(indices.flatten().long().contiguous(), weight.contiguous(), dtype)
        return rows.view(*indices.shape, weight.in_features)

    @torch.library.register_fake(name)
    def fake_embedding(indices: Tensor, *args: Any) -> Tensor:
        weight, dtype = _embedding_weight(*args[:-1]), args[-1]
        return weight.codes.new_empty((*indices.shape, weight.in_features), dtype=dtype)


_define_embedding()
for _format, _schema in SCHEMAS.items():
    _define(_format, _schema)
