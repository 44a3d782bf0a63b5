"""The Triton kernels in Triton's interpreter, within bounds, against float64 with the format's own dequantized weight.

The interpreter has no bf16 arithmetic: there, bf16 inputs are computed in fp32. Its cost follows the number of programs
and of their steps, so shapes are small.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from cases import DTYPES, FORMATS, GROUP_SIZES, SPARSE, Case, make_dense, make_sparse
from pairwise import covering_array
from torch import nn
from triton_cases import KINDS, weight_of
from triton_guard import guarded

from requant_kernels import DenseSparseLinear, dispatch, use_backend
from requant_kernels.backends.triton import BACKEND

pytestmark = pytest.mark.triton

FACTORS = {
    "kind": KINDS,
    "dtype": DTYPES,
    "tokens": (1, 7, 16, 17, 33),
    "shape": ((1, 32), (15, 63), (16, 64), (17, 100), (72, 319), (40, 576), (33, 1270)),
    "group_size": GROUP_SIZES,
    "sparse": SPARSE,
    "bias": (True, False),
    "multiprocessors": (1, 2),
}
STEP_ERROR = 2**-13  # of a weight in fp32: 2^-24 of (256 + 255) twice, for scales up to 2
# ||y - reference|| / (||x|| ||W||) per token. Of 16-bit inputs the weights and the outputs are rounded, of format
# trellis the rotated inputs, too. In fp32, codes of 2 bits are differences of numbers around 256: a few rows of few
# weights reach 1.1e-6 once in some ten thousand draws.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = importlib.import_module("requant_kernels.backends.triton.launch")
    with guarded():
        yield module


@pytest.mark.parametrize("case", covering_array(FACTORS), ids=lambda case: "-".join(map(str, case.values())))
def test_products(case: dict, pick: random.Random, launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, w = weight_of(pick, case)
    target = launch.Target("interpreter", case["multiprocessors"])
    monkeypatch.setattr(launch, "target_of", lambda device: target)
    x = torch.randn(case["tokens"], weight.in_features).to(case["dtype"])
    bias = torch.randn(weight.out_features).to(case["dtype"]) if case["bias"] else None
    y = launch.linear(x, weight, bias, "16bit")
    assert y.dtype == x.dtype
    expected = x.double() @ w.T + (0 if bias is None else bias.double())
    size = x.double().norm(dim=1) * w.norm() + (0 if bias is None else bias.double().norm())
    assert float(((y.double() - expected).norm(dim=1) / size).max()) < TOLERANCE[case["dtype"]]


WEIGHT_FACTORS = {name: FACTORS[name] for name in ("kind", "dtype", "sparse", "group_size")} | {
    "shape": ((1, 32), (17, 100), (40, 576))
}


@pytest.mark.parametrize("case", covering_array(WEIGHT_FACTORS), ids=lambda case: "-".join(map(str, case.values())))
def test_weights(case: dict, pick: random.Random, launch: ModuleType) -> None:
    weight, w = weight_of(pick, case)
    decoded = launch.dequantize(weight, case["dtype"])
    assert decoded.dtype == case["dtype"]
    assert torch.allclose(decoded.double(), w, atol=STEP_ERROR, rtol=torch.finfo(case["dtype"]).eps)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind[1] == 4], ids=str)
def test_products_of_decoded_slices(
    kind: tuple[str, int], pick: random.Random, launch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(make_dense(pick, *kind, 100, 300), make_sparse(pick, "half_percent", 100, 300))
    monkeypatch.setattr(launch, "SCRATCH_BYTES", 40 * 300 * 4)
    x, bias = torch.randn(200, 300), torch.randn(100)
    y = launch.product_of_decoded(x.view(2, 100, 300), case.operands(), bias, "16bit")
    assert y.shape == (2, 100, 100)
    assert torch.allclose(y.view(200, 100).double(), x.double() @ case.reference.T + bias.double(), atol=1e-3)


def test_the_guard_finds_a_read_past_the_end(pick: random.Random, launch: ModuleType) -> None:
    weight = Case(make_dense(pick, "uniform", 4, 32, 64), None).operands()
    short = weight._replace(dense=(weight.codes[:1], *weight.dense[1:]))
    with pytest.raises(Exception, match="out of bounds"):
        launch.linear(torch.randn(1, 64), short, None, "16bit")


def test_the_guard_finds_a_write_past_the_end(pick: random.Random, launch: ModuleType) -> None:
    weight = Case(make_dense(pick, "uniform", 4, 32, 64), None).operands()
    with pytest.raises(Exception, match="out of bounds"):
        launch.decode_rows(weight, 0, 32, torch.empty(31, 64))


def test_splitting_changes_no_bit_from_run_to_run(pick: random.Random, launch: ModuleType) -> None:
    case = Case(make_dense(pick, "uniform", 4, 16, 2048), make_sparse(pick, "half_percent", 16, 2048))
    weight, x = case.operands(), torch.randn(2, 2048)
    kernel = launch.Kernel.of("uniform", 4, 2)
    tile = launch.tile_for("interpreter", kernel)
    assert launch.split_inputs(2048, tile, 8, 1) == (8, 1)
    first, again = (launch.linear_with(x, weight, None, kernel, tile, 8) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("in_features", "programs", "multiprocessors", "tiles", "expected"),
    [
        (4096, 4, 108, 64, (6, 3)),  # 6 programs of 3 slices are wanted; 16 slices are 5 x 3 + 1
        (4096, 4, 108, 1000, (1, 16)),  # enough rows
        (100, 4, 108, 1, (1, 1)),  # less than a slice
        (4097, 1, 4, 1, (4, 5)),
    ],
)
def test_inputs_are_split_in_whole_slices(
    in_features: int, programs: int, multiprocessors: int, tiles: int, expected: tuple[int, int], launch: ModuleType
) -> None:
    tile = launch.Tile(rows=64, inputs=128, warps=4, stages=3, entries=32, programs=programs)
    splits, slices = launch.split_inputs(in_features, tile, multiprocessors, tiles)
    assert (splits, slices) == expected
    assert (splits - 1) * slices * 256 < in_features <= splits * slices * 256


LAYERS = {
    "uniform": {"format": "uniform", "bits": 3, "group_size": 64},
    "shared": {"format": "lut", "bits": 4, "table": "nf4", "sparse_percent": 0},
    "rows": {"format": "lut", "bits": 2},
    "trellis": {"format": "trellis", "bits": 2},
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request: pytest.FixtureRequest) -> Iterator[DenseSparseLinear]:
    with use_backend("triton"):
        yield DenseSparseLinear.from_linear(nn.Linear(100, 50), **request.param)


def test_opcheck(layer: DenseSparseLinear, launch: ModuleType) -> None:
    operator = getattr(torch.ops.requant, f"{layer.format}_linear").default
    torch.library.opcheck(operator, (torch.randn(3, 100), *layer.operands.linear_arguments(layer.bias, "16bit")))


def test_a_compiled_layer_is_one_operator(layer: DenseSparseLinear, launch: ModuleType) -> None:
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(2, 100)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)


def test_a_layer_loaded_for_another_backend_is_computed_all_the_same(launch: ModuleType) -> None:
    layer, x = DenseSparseLinear.from_linear(nn.Linear(100, 50)), torch.randn(2, 100)
    before = layer(x)
    with use_backend("triton"):
        assert torch.allclose(layer(x), before, atol=1e-5)
        layer.prepare()
    assert torch.allclose(layer(x), before, atol=1e-6)


def test_every_number_of_tokens_has_a_kernel() -> None:
    for format in ("uniform", "lut", "trellis"):
        assert {phase for _, phase in dispatch.ROUTES["triton", format]} <= {
            phase for name, phase in BACKEND.kernels if name == format
        }
