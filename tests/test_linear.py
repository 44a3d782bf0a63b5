"""The layer keeps nn.Linear's contract."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from requant_kernels import DenseSparseLinear, SparseWeight, UniformWeight, set_activations
from requant_kernels.linear import _may_bypass_the_operator
from requant_kernels.memory import ALIGNMENT_BYTES


@pytest.fixture
def layer() -> DenseSparseLinear:
    return DenseSparseLinear.from_linear(nn.Linear(100, 50), bits=3, sparse_percent=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 2},
        {"bits": 8, "group_size": -1},
        {"format": "lut", "bits": 2},
        {"format": "lut", "bits": 4},
        {"format": "lut", "bits": 4, "table": "fp4"},
        {"format": "trellis", "bits": 2},
        {"format": "trellis", "bits": 4, "code": "3inst"},
    ],
)
def test_from_linear_approximates_and_keeps_the_largest_residuals(options):
    linear = nn.Linear(300, 40)
    dense_only = DenseSparseLinear.from_linear(linear, sparse_percent=0, **options)
    layer = DenseSparseLinear.from_linear(linear, sparse_percent=1.0, **options)
    assert dense_only.sparse is None
    assert layer.sparse.nnz == layer.outliers == 120
    residual = (linear.weight - dense_only.dequantize()).detach().abs()
    error = (linear.weight - layer.dequantize()).detach().abs()
    assert error.max() <= residual.flatten().kthvalue(40 * 300 - 120).values + 1e-6
    assert error.norm() < residual.norm()


def test_a_bad_option_is_named():
    linear = nn.Linear(64, 16)
    with pytest.raises(ValueError, match="format must be one of uniform, lut, trellis, got ternary"):
        DenseSparseLinear.from_linear(linear, "ternary")
    with pytest.raises(ValueError, match="bits must be one of 4, got 3"):
        DenseSparseLinear.from_linear(linear, "lut", bits=3, table="nf4")


def test_parts_of_different_shapes_are_refused():
    dense = DenseSparseLinear.from_linear(nn.Linear(64, 16), sparse_percent=0).dense
    sparse = SparseWeight.from_dense(torch.ones(16, 32), torch.ones(16, 32, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"sparse must have the shape of dense, \[16, 64\], got \[16, 32\]"):
        DenseSparseLinear(dense, sparse)
    with pytest.raises(ValueError, match=r"bias must have shape \[16\], got \[3\]"):
        DenseSparseLinear(dense, bias=torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_inputs_of_any_shape_stride_and_dtype(layer, dtype):
    x = torch.randn(3, 100, 5, dtype=dtype).transpose(1, 2)
    assert not x.is_contiguous()
    y = layer(x)
    expected = x.float() @ layer.dequantize().T + layer.bias
    assert y.dtype == dtype
    assert y.shape == (3, 5, 50)
    assert (y.float() - expected).norm() / expected.norm() < {torch.float32: 1e-5, torch.float16: 1e-3}.get(dtype, 1e-2)
    assert layer(x[:0]).shape == (0, 5, 50)
    assert layer(x[0, 0]).shape == (50,)


def test_a_wrong_input_is_refused_on_the_fast_path_and_off_it(layer):
    for x in (torch.randn(2, 99), torch.randn(2, 99, requires_grad=True)):
        with pytest.raises(ValueError, match=r"x must be fp32, fp16 or bf16 of shape \[..., 100\]"):
            layer(x)
    with pytest.raises(ValueError, match=r"torch.float64"):
        layer(torch.randn(2, 100, dtype=torch.float64))


def test_the_fast_path_steps_aside_when_somebody_watches(layer):
    x = torch.randn(2, 100)
    assert _may_bypass_the_operator(x)
    assert not _may_bypass_the_operator(x.clone().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        assert not _may_bypass_the_operator(x)
    with FlopCounterMode(display=False):
        assert not _may_bypass_the_operator(x)
    with torch.device("cpu"):
        assert not _may_bypass_the_operator(x)
    assert torch.allclose(torch.func.vmap(layer)(x.unsqueeze(1)).squeeze(1), layer(x), atol=1e-5)


def test_fast_path_and_operator_agree_bit_for_bit(layer):
    x = torch.randn(7, 100)
    assert torch.equal(layer(x), layer(x.clone().requires_grad_()).detach())


def test_autocast_computes_in_its_dtype(layer):
    x = torch.randn(2, 100)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, layer(x.bfloat16()))


def test_casting_the_module_does_not_touch_its_buffers(layer):
    before = {name: buffer.clone() for name, buffer in layer.state_dict().items()}
    x = torch.randn(2, 100)
    y = layer(x)
    for cast in (lambda m: m.to(torch.bfloat16), nn.Module.half, nn.Module.double, nn.Module.float):
        cast(layer)
        for name, buffer in layer.state_dict().items():
            assert buffer.dtype == before[name].dtype
            assert torch.equal(buffer, before[name])
    assert torch.equal(layer(x), y)
    assert layer.to("meta").codes.is_meta


def test_copies_and_state_dicts_compute_the_same(layer):
    x = torch.randn(3, 100)
    y = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    empty = DenseSparseLinear.from_spec(layer.spec)
    empty.load_state_dict(layer.state_dict())
    assert torch.equal(empty(x), y)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), y)


def test_the_state_dict_holds_what_the_layer_has_and_no_more(layer):
    assert set(layer.state_dict()) == {"codes", "scale", "zero", "row_offsets", "columns", "values", "bias"}
    plain = DenseSparseLinear.from_linear(nn.Linear(64, 16, bias=False), "lut", bits=3, sparse_percent=0)
    assert set(plain.state_dict()) == {"codes", "table"}


def test_buffers_from_anywhere_are_brought_to_aligned_addresses(layer):
    raw = torch.zeros(layer.codes.numel() * 4 + 64, dtype=torch.uint8)
    start = next(i for i in range(4, 68, 4) if (raw.data_ptr() + i) % ALIGNMENT_BYTES)
    misaligned = raw[start : start + layer.codes.numel() * 4].view(torch.int32).view_as(layer.codes)
    misaligned.copy_(layer.codes)
    x = torch.randn(2, 100)
    y = layer(x)
    layer.codes = misaligned
    layer.prepare()
    assert layer.codes.data_ptr() % ALIGNMENT_BYTES == 0
    assert torch.equal(layer(x), y)


def test_int8_activations_are_chosen_by_layer_or_for_a_model(layer):
    linear = nn.Linear(100, 50)
    torch.manual_seed(0)
    first = DenseSparseLinear.from_linear(linear, bits=4)
    second = DenseSparseLinear.from_linear(linear, bits=4, activations="int8")
    assert (first.activations, second.activations) == ("16bit", "int8")
    x = torch.randn(3, 100)
    exact, rounded = first(x), second(x)
    assert 1e-3 < (exact - rounded).norm() / exact.norm() < 2e-2
    assert torch.equal(second(x.clone().requires_grad_()).detach(), rounded)
    model = nn.Sequential(first, nn.Linear(50, 100), nn.Sequential(second))
    set_activations(model, "16bit")
    assert torch.equal(second(x), exact)
    set_activations(model, "int8")
    assert torch.equal(first(x), rounded)
    assert torch.equal(copy.deepcopy(first)(x), rounded)
    assert torch.equal(DenseSparseLinear(first.dense, first.sparse, first.bias, activations="int8")(x), rounded)


def test_unknown_activations_are_refused(layer):
    for choose in (
        lambda: setattr(layer, "activations", "int4"),
        lambda: set_activations(layer, "int4"),
        lambda: DenseSparseLinear(layer.dense, activations="int4"),
    ):
        with pytest.raises(ValueError, match="activations must be one of 16bit, int8, got int4"):
            choose()


def test_a_model_of_these_layers_trains_what_lies_below(layer):
    model = nn.Sequential(nn.Linear(20, 100), layer)
    model(torch.randn(2, 20)).sum().backward()
    assert model[0].weight.grad.norm() > 0


def test_bits_and_repr():
    layer = DenseSparseLinear.from_linear(nn.Linear(256, 64, bias=False), bits=4, sparse_percent=0.5, symmetric=True)
    entries = round(64 * 256 * 0.005)
    assert layer.paper_bits == pytest.approx(4 + 16 / 128 + 48 * entries / (64 * 256))
    assert layer.true_bits == pytest.approx(4 + 16 / 128 + 8 * (4 * entries + 4 * 65) / (64 * 256))
    assert "in_features=256, out_features=64, format=uniform, bits=4, group_size=128, sparse=0.50 %" in repr(layer)


def test_parts_are_the_layer_s_own_buffers(layer):
    assert isinstance(layer.dense, UniformWeight)
    assert layer.dense.codes is layer.codes
    assert torch.equal(layer.dense.dequantize() + layer.sparse.to_dense(), layer.dequantize())
