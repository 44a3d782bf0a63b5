"""The CUDA kernels of format `trellis`, run by the simulator, against float64 with the dequantized weight."""

from __future__ import annotations

import random
from typing import Any

import gpusim_backend
import pytest
import torch
from cases import SPARSE, make_sparse
from pairwise import covering_array
from torch import Tensor, nn
from trellis_cases import KINDS, operands, random_weight

from requant_kernels import DenseSparseLinear, use_backend
from requant_kernels.backends import cuda
from requant_kernels.backends.native import DTYPES, native_weight
from requant_kernels.dispatch import Backend
from requant_kernels.formats import SparseWeight, TrellisWeight, trellis
from requant_kernels.formats.hadamard import hadamard_transform

pytestmark = pytest.mark.gpusim

HALF_DTYPES = (torch.float16, torch.bfloat16)
# Sizes that are padded, also with a tile that no span of 128 inputs is full without; odd factors; several splits.
SHAPES = [(16, 16), (40, 96), (100, 576), (33, 1000), (1, 33), (96, 72), (272, 40), (17, 2200)]
FACTORS: dict[str, list[Any]] = {
    "kind": KINDS,
    "dtype": list(HALF_DTYPES),
    "tokens": [1, 2, 7, 8, 9, 16, 33, 64],
    "shape": SHAPES,
    "sparse": list(SPARSE),
    "bias": [None, "same", "fp32"],
}
# Of `relative_error`: inputs and values of C are rounded to fp16, and y to its dtype.
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 4e-3}
UNIT_ROUNDOFF = 2.0**-11  # of fp16


# Of which the last four tiles of 16 rows are not all there. On one multiprocessor they make a layer a tall one.
TALL_SHAPES = [(705, 40), (730, 1000), (740, 96), (768, 2200)]
TALL_FACTORS = FACTORS | {"tokens": [1, 2, 7, 8], "shape": TALL_SHAPES}


def relative_error(
    y: Tensor, x: Tensor, dense: TrellisWeight, sparse: SparseWeight | None = None, bias: Tensor | None = None
) -> float:
    """||y - reference||, the largest over tokens, relative to the reference or to what is usual for such x and W: few
    outputs may happen to be small.
    """
    w = dense.dequantize().double()
    if sparse is not None:
        w += sparse.to_dense().double()
    reference = x.double() @ w.T + (0 if bias is None else bias.double())
    usual = x.double().norm(dim=1) * w.norm() / x.shape[1] ** 0.5
    return float(((y.double() - reference).norm(dim=1) / torch.maximum(reference.norm(dim=1), usual)).max())


def check_linear(backend: Backend, pick: random.Random, phase: str, **factors: Any) -> None:
    dtype, (out_features, in_features) = factors["dtype"], factors["shape"]
    dense = random_weight(*factors["kind"], out_features, in_features)
    sparse = make_sparse(pick, factors["sparse"], out_features, in_features)
    x = torch.randn(factors["tokens"], in_features).to(dtype)
    bias_dtype = {None: None, "same": dtype, "fp32": torch.float32}[factors["bias"]]
    bias = None if bias_dtype is None else torch.randn(out_features).to(bias_dtype)
    y = backend.kernels["trellis", phase](x, operands(dense, sparse), bias, "16bit")
    assert y.dtype == dtype
    # The fewer outputs a token has, the farther their error may be from what is usual.
    assert relative_error(y, x, dense, sparse, bias) <= TOLERANCE[dtype] * (1 + 2 / out_features**0.5)


@pytest.mark.parametrize("factors", covering_array(FACTORS), ids=lambda factors: "-".join(map(str, factors.values())))
def test_linear_matches_float64(backend: Backend, factors: dict[str, Any], pick: random.Random) -> None:
    check_linear(backend, pick, "fused", **factors)


@pytest.mark.parametrize(
    "factors", covering_array(TALL_FACTORS), ids=lambda factors: "-".join(map(str, factors.values()))
)
def test_linear_of_tall_layers_matches_float64(
    one_multiprocessor: Backend, factors: dict[str, Any], pick: random.Random
) -> None:
    gpusim_backend.extension().clear_launches()
    check_linear(one_multiprocessor, pick, "fused", **factors)
    assert gpusim_backend.launched_shapes() == {(1, 4)}


@pytest.mark.full_matrix
@pytest.mark.parametrize("tokens", FACTORS["tokens"])
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_linear_matches_float64_everywhere(
    backend: Backend, kind: tuple[str, int], dtype: torch.dtype, tokens: int, pick: random.Random
) -> None:
    for shape in SHAPES:
        for sparse in SPARSE:
            check_linear(
                backend, pick, "fused", kind=kind, dtype=dtype, tokens=tokens, shape=shape, sparse=sparse, bias="same"
            )


@pytest.mark.parametrize("sparse", SPARSE)
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS[1::3], ids=str)
def test_prefill_by_slices(
    backend: Backend,
    kind: tuple[str, int],
    dtype: torch.dtype,
    sparse: str,
    pick: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slices of 32 rows, the last one shorter; an odd number of tokens, more than a warp takes of them."""
    monkeypatch.setattr(cuda, "SCRATCH_BYTES", 2 * 32 * 304)
    check_linear(
        backend, pick, "prefill", kind=kind, dtype=dtype, tokens=65, shape=(77, 300), sparse=sparse, bias="fp32"
    )


def test_prefill_of_a_view_into_another_tensor(backend: Backend) -> None:
    """Whose address allows no vector loads."""
    dense = random_weight("1mad", 4, 48, 128)
    x = torch.randn(3 * 128 + 1).half()[1:].view(3, 128)
    y = backend.kernels["trellis", "prefill"](x, operands(dense), None, "16bit")
    assert relative_error(y, x, dense) <= TOLERANCE[torch.float16]


@pytest.mark.parametrize("phase", ["fused", "prefill"])
def test_fp32_inputs_are_computed_in_fp32(backend: Backend, phase: str) -> None:
    dense = random_weight("3inst", 3, 40, 96)
    x = torch.randn(3, 96)
    y = backend.kernels["trellis", phase](x, operands(dense), None, "16bit")
    assert relative_error(y, x, dense) <= 1e-5


@pytest.mark.parametrize("sparse", ["none", "half_percent"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantize(backend: Backend, kind: tuple[str, int], sparse: str, pick: random.Random) -> None:
    dense = random_weight(*kind, 33, 200)
    entries = make_sparse(pick, sparse, 33, 200)
    expected = dense.dequantize() + (0 if entries is None else entries.to_dense())
    for dtype, tolerance in ((torch.float32, 0), *TOLERANCE.items()):
        w = backend.kernels["trellis", "dequantize"](operands(dense, entries), dtype)
        assert w.dtype == dtype
        assert (w.double() - expected.double()).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("phase", ["fused", "prefill"])
def test_tokens_of_any_magnitude(backend: Backend, phase: str) -> None:
    dense = random_weight("3inst", 2, 48, 576)
    x = torch.randn(5, 576) * torch.tensor([1e30, 1, 1e-30, 0, 1]).unsqueeze(1)
    x[4] = 0
    x[4, 77] = 1e4  # one outlier
    x = x.to(torch.bfloat16)
    y = backend.kernels["trellis", phase](x, operands(dense), None, "16bit")
    assert not y[3].any()
    present = [0, 1, 2, 4]
    assert relative_error(y[present], x[present], dense) <= TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("phase", ["fused", "prefill"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_spoils_its_own_token(
    backend: Backend, phase: str, value: float, pick: random.Random
) -> None:
    dense = random_weight("1mad", 3, 40, 96)
    weight = operands(dense, make_sparse(pick, "half_percent", 40, 96))
    x = torch.randn(9, 96).half()
    expected = backend.kernels["trellis", phase](x, weight, None, "16bit")
    x[4, 17] = value
    y = backend.kernels["trellis", phase](x, weight, None, "16bit")
    assert not y[4].isfinite().any()
    others = [token for token in range(9) if token != 4]
    assert torch.equal(y[others], expected[others])


def test_a_fused_call_is_three_launches_on_the_callers_stream(backend: Backend, pick: random.Random) -> None:
    extension = gpusim_backend.extension()
    weight = operands(random_weight("hyb", 2, 33, 2200), make_sparse(pick, "half_percent", 33, 2200))
    extension.clear_launches()
    backend.kernels["trellis", "fused"](torch.randn(3, 2200).half(), weight, torch.randn(33), "16bit")
    launches = extension.launches()
    kernels = [[name for name in ("hadamard", "linear") if name in launch.kernel] for launch in launches]
    assert kernels == [["hadamard"], ["linear"], ["hadamard"]]
    assert {launch.stream for launch in launches} == {gpusim_backend.STREAM}


@pytest.mark.parametrize("shape", [(40,), (1, 40), (2, 3, 40), (70, 40), (0, 40)])
def test_layers_run_on_the_forced_backend(backend: Backend, shape: tuple[int, ...]) -> None:
    layer = DenseSparseLinear.from_linear(nn.Linear(40, 33), format="trellis", bits=2)
    x = torch.randn(shape).to(torch.bfloat16)
    with use_backend("reference"):
        expected = layer(x)
    extension = gpusim_backend.extension()
    extension.clear_launches()
    with use_backend(backend.name):
        y = layer(x)
    assert bool(extension.launches()) == bool(x.numel())
    assert y.shape == expected.shape
    torch.testing.assert_close(y, expected, rtol=2**-6, atol=2**-6)


def test_many_tokens_fill_the_device() -> None:
    """And take the rotation that makes more rows with every thread."""
    extension = gpusim_backend.extension()
    dense = random_weight("1mad", 2, 2048, 64)
    x = torch.randn(20, 64).half()
    devices = gpusim_backend.SimulatedDevices(extension, multiprocessors=1)
    y = cuda.CudaKernels(extension, devices).trellis_prefill(x, operands(dense), None, "16bit")
    assert relative_error(y, x, dense) <= TOLERANCE[torch.float16]


def rotate_inputs(x: Tensor, dense: TrellisWeight, multiprocessors: int | None = None) -> tuple[Tensor, Tensor]:
    """(rotated inputs as they are stored, token factors)."""
    extension = gpusim_backend.extension()
    device = gpusim_backend.SimulatedDevices(extension, multiprocessors=multiprocessors)
    weight = operands(dense)
    rotated = torch.empty(x.shape[0], trellis.padded_shape(16, x.shape[1])[1], dtype=torch.float16)
    factors = torch.empty(x.shape[0])
    with device.running(x.device, (x, *weight.dense), (rotated, factors)):
        extension.trellis_rotate_inputs(
            native_weight(extension, weight),
            x.data_ptr(),
            DTYPES[x.dtype],
            x.shape[0],
            rotated.data_ptr(),
            factors.data_ptr(),
            *device.launch(x.device),
        )
    return rotated, factors


@pytest.mark.parametrize("size", [16, 40, 96, 576, 592, 1000, 1024, 2048, 11008, 16016, 16384, 32768])
def test_rotated_inputs_are_those_of_float64_but_for_their_rounding(size: int) -> None:
    dense = random_weight("1mad", 2, 16, size)
    x = torch.randn(2, size).half()
    rotated, factors = rotate_inputs(x, dense)
    signed = torch.zeros(2, rotated.shape[1], dtype=torch.float64)
    signed[:, :size] = x.double() * dense.input_signs
    expected = hadamard_transform(signed) / factors.double().unsqueeze(1)
    excess = (rotated.double() - expected).abs() - UNIT_ROUNDOFF * expected.abs()
    assert excess.max() <= 1e-6 * expected.abs().max()
    assert torch.equal(factors.log2(), factors.log2().round())


def test_a_rotation_does_not_depend_on_the_number_of_tokens() -> None:
    dense = random_weight("1mad", 2, 16, 4096)
    x = torch.randn(40, 4096).to(torch.bfloat16)
    many, factors = rotate_inputs(x, dense, multiprocessors=1)
    for token in (0, 39):
        alone, factor = rotate_inputs(x[token : token + 1], dense)
        assert torch.equal(alone[0], many[token])
        assert torch.equal(factor[0], factors[token])


def test_sizes_with_too_large_factors_are_refused() -> None:
    dense = random_weight("1mad", 2, 16, 16 * 8193)
    with pytest.raises(ValueError, match="must not exceed 8192, got 8193 of 131088"):
        rotate_inputs(torch.randn(1, 16 * 8193).half(), dense)
