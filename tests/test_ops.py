"""The operators: right against float64, refusing what is wrong, and visible to torch's machinery."""

import pytest
import torch
from torch import nn

from requant_kernels import DenseSparseLinear, use_backend

LAYERS = {
    "uniform": {"format": "uniform", "bits": 3, "group_size": 64},
    "symmetric": {"format": "uniform", "bits": 4, "symmetric": True, "sparse_percent": 0},
    "rows": {"format": "lut", "bits": 3},
    "shared": {"format": "lut", "bits": 4, "table": "nf4", "group_size": 64},
    "trellis": {"format": "trellis", "bits": 2},
    "hyb": {"format": "trellis", "bits": 3, "code": "hyb", "sparse_percent": 0},
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request) -> DenseSparseLinear:
    return DenseSparseLinear.from_linear(nn.Linear(100, 50), **request.param)


def operator(layer):
    return getattr(torch.ops.requant, f"{layer.format}_linear").default


def arguments_of(layer, **changes):
    """The operator's arguments after x, some of them replaced by name."""
    values = layer.operands.linear_arguments(layer.bias, layer.activations)
    names = [argument.name for argument in operator(layer)._schema.arguments[1:]]
    assert changes.keys() <= set(names)
    return [changes.get(name, value) for name, value in zip(names, values, strict=True)]


@pytest.mark.parametrize("activations", ["16bit", "int8"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck(layer, requires_grad, activations):
    x = torch.randn(3, 100, requires_grad=requires_grad)
    torch.library.opcheck(operator(layer), (x, *arguments_of(layer, activations=activations)))


def test_opcheck_dequantize(layer):
    dequantize = getattr(torch.ops.requant, f"dequantize_{layer.format}").default
    torch.library.opcheck(dequantize, layer.operands.dequantize_arguments(torch.float32))


@pytest.mark.parametrize("shape", [(100,), (1, 100), (2, 3, 100), (40, 100), (0, 100), (2, 0, 100)])
def test_the_result_is_x_times_dense_plus_sparse(layer, shape):
    x = torch.randn(shape)
    y = operator(layer)(x, *arguments_of(layer))
    expected = x.double() @ layer.dequantize().double().T + layer.bias.double()
    assert y.shape == (*shape[:-1], 50)
    assert y.dtype == x.dtype
    assert torch.allclose(y.double(), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(100,), (2, 3, 100), (40, 100), (0, 100)])
def test_int8_activations_are_what_the_reference_makes_of_them(layer, shape):
    x = torch.randn(shape)
    arguments = arguments_of(layer, activations="int8")
    y = operator(layer)(x, *arguments)
    with use_backend("reference"):
        expected = operator(layer)(x, *arguments)
    assert torch.allclose(y, expected, atol=1e-4)
    exact = operator(layer)(x, *arguments_of(layer))
    assert torch.equal(y, exact) == (layer.format == "trellis" or x.numel() == 0)


def test_gradients_of_x_and_bias(layer):
    layer.bias.requires_grad_()
    x = torch.randn(4, 100, requires_grad=True)
    weights = torch.randn(4, 50)
    (layer(x) * weights).sum().backward()
    assert torch.allclose(x.grad, weights @ layer.dequantize(), atol=1e-4)
    assert torch.allclose(layer.bias.grad, weights.sum(0), atol=1e-5)


@pytest.mark.parametrize("activations", ["16bit", "int8"])
def test_compiles_without_graph_breaks(layer, activations):
    torch._dynamo.reset()  # the layers before count towards the limit of recompilations
    layer.activations = activations
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for tokens in (1, 5, 40):
        x = torch.randn(tokens, 100)
        assert torch.allclose(compiled(x), layer(x), atol=1e-5)


WRONG = {
    "bits": (5, "bits must be one of"),
    "group_size": (33, "group_size must be -1 or a positive multiple of 32, got 33"),
    "codes": (torch.zeros(4, 5, dtype=torch.int32), r"codes must have shape \[4, "),
    "out_features": (65, r"codes must have shape \[5, "),
    "bias": (torch.zeros(49), r"bias must have shape \[50\], got \[49\]"),
    "columns": (None, "row_offsets, columns and values must be given together"),
    "row_offsets": (torch.zeros(51), "row_offsets must have dtype torch.int32, got torch.float32"),
    "activations": ("int4", "activations must be one of 16bit, int8, got int4"),
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_argument_is_named(argument):
    layer = DenseSparseLinear.from_linear(nn.Linear(100, 50), bits=3)
    value, message = WRONG[argument]
    with pytest.raises(ValueError, match=message):
        operator(layer)(torch.randn(1, 100), *arguments_of(layer, **{argument: value}))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(1, 200), "codes must have shape"),
        (torch.randn(1, 100, dtype=torch.float64), "x.dtype must be one of"),
        (torch.ones(1, 100, dtype=torch.int32), "x.dtype must be one of"),
        (torch.tensor(1.0), "x must have at least one dimension"),
        (torch.randn(1, 100, device="meta"), "x must be on the device of codes, cpu, got meta"),
    ],
)
def test_a_wrong_input_is_refused(layer, x, message):
    with pytest.raises(ValueError, match=message):
        operator(layer)(x, *arguments_of(layer))


@pytest.mark.parametrize(("second", "third"), [("scale", "zero"), ("table", "scale")])
def test_group_values_of_the_wrong_shape_are_named(second, third):
    format = "uniform" if second == "scale" else "lut"
    options = {"table": "nf4"} if format == "lut" else {}
    layer = DenseSparseLinear.from_linear(nn.Linear(100, 50), format, bits=4, group_size=64, **options)
    for name in (second, third):
        wrong = getattr(layer, name)[:, :3]
        with pytest.raises(ValueError, match=f"^{name} must have shape"):
            operator(layer)(torch.randn(1, 100), *arguments_of(layer, **{name: wrong}))
