"""The CUDA kernels and their launchers, run by the simulator, against float64 with the format's own weight.

The simulator also fails a test on any access outside of the tensors, misaligned or uninitialised, on races, missing
lanes and divergent barriers.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import gpusim_backend
import pytest
import torch
from cases import DTYPES, FORMATS, GROUP_SIZES, SPARSE, Case, make_dense, make_sparse
from pairwise import covering_array, pairs
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from requant_kernels import DenseSparseLinear, dispatch, use_backend
from requant_kernels.backends import cuda
from requant_kernels.backends.sparse_tiles import prepare_sparse
from requant_kernels.dispatch import Backend
from requant_kernels.formats import SparseWeight, UniformWeight, tile16

HALF_DTYPES = (torch.float16, torch.bfloat16)
# Every remainder of tiles (16 rows, 64 inputs), slices (256) and spans (128); several splits of the inputs.
SHAPES = [
    (1, 33), (15, 63), (16, 64), (17, 72), (40, 100), (64, 160), (33, 257), (48, 320), (31, 520), (100, 576),
    (18, 1096), (16, 2625), (5, 9000),
]  # fmt: skip
TOKENS = (1, 2, 7, 8, 9, 16, 33, 64)
FACTORS: dict[str, list[Any]] = {
    "kind": [*FORMATS, ("uniform", 4, "zero"), ("uniform", 8, "zero"), ("lut", 3, "shared"), ("lut", 4, "shared")],
    "dtype": list(HALF_DTYPES),
    "tokens": list(TOKENS),
    "shape": SHAPES,
    "sparse": [kind for kind in SPARSE if kind != "no_entries"],
    "group_size": list(GROUP_SIZES),
    "bias": [None, "same", "fp32"],
}
COVERING_ARRAY = covering_array(FACTORS)
# On one multiprocessor, these make tall layers; of their last four tiles of 16 rows, one, two, three or all are there.
TALL_SHAPES = [(705, 33), (730, 520), (740, 1096), (768, 160), (707, 2625)]
TALL_FACTORS = FACTORS | {"tokens": [1, 2, 7, 8], "shape": TALL_SHAPES}
# Of a number's rounding, relative to it.
UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def kernel(backend: Backend, format: str, phase: str) -> Any:
    return backend.kernels[format, phase]


def make_case(pick: random.Random, kind: tuple[Any, ...], shape: tuple[int, int], sparse: str, **options: Any) -> Case:
    dense = make_dense(pick, kind[0], kind[1], *shape, variant=len(kind) == 3, **options)
    return Case(dense, make_sparse(pick, sparse, *shape))


def assert_product(y: Tensor, x: Tensor, case: Case, bias: Tensor | None = None, phase: str = "fused") -> None:
    """y is x @ W.T + bias, up to the rounding of y, of what the phase rounds of W, and of sums in fp32."""
    # Codes are exact in 16 bits, tables are rounded to the dtype of x; prefill rounds all of W.
    exact = case.dense.format == "uniform" and phase == "fused"
    weight_roundoff = 0 if exact else UNIT_ROUNDOFF[x.dtype]
    w = case.reference
    expected = x.double() @ w.T + (0 if bias is None else bias.double())
    size = x.double().abs() @ w.abs().T + (0 if bias is None else bias.double().abs())
    bound = UNIT_ROUNDOFF[y.dtype] * expected.abs() + (weight_roundoff + 2.0**-18) * size + 1e-6
    excess = ((y.double() - expected).abs() / bound).max()
    assert excess <= 1, f"{excess:.1f} times the bound"


def check_linear(backend: Backend, pick: random.Random, phase: str, **factors: Any) -> None:
    dtype, shape = factors["dtype"], factors["shape"]
    options = {"group_size": factors["group_size"]} if "group_size" in factors else {}
    case = make_case(pick, factors["kind"], shape, factors["sparse"], **options)
    x = (torch.randn(factors["tokens"], shape[1]) / 8).to(dtype)
    bias_dtype = {None: None, "same": dtype, "fp32": torch.float32}[factors.get("bias")]
    bias = None if bias_dtype is None else torch.randn(shape[0]).to(bias_dtype)
    y = kernel(backend, case.dense.format, phase)(x, case.operands(), bias, "16bit")
    assert y.dtype == dtype
    assert_product(y, x, case, bias, phase)


def test_the_covering_array_covers_all_pairs() -> None:
    covered = {pair for case in COVERING_ARRAY for pair in pairs(case)}
    wanted = {
        (first, one, second, other)
        for position, first in enumerate(FACTORS)
        for second in list(FACTORS)[position + 1 :]
        for one, other in product(FACTORS[first], FACTORS[second])
    }
    assert covered == wanted
    assert len(COVERING_ARRAY) < 2.2 * len(FACTORS["shape"]) * len(FACTORS["kind"])


@pytest.mark.gpusim
@pytest.mark.parametrize("factors", COVERING_ARRAY, ids=lambda factors: "-".join(map(str, factors.values())))
def test_linear_matches_float64(backend: Backend, factors: dict[str, Any], pick: random.Random) -> None:
    check_linear(backend, pick, "fused", **factors)


@pytest.mark.gpusim
@pytest.mark.parametrize(
    "factors", covering_array(TALL_FACTORS), ids=lambda factors: "-".join(map(str, factors.values()))
)
def test_linear_of_tall_layers_matches_float64(
    one_multiprocessor: Backend, factors: dict[str, Any], pick: random.Random
) -> None:
    gpusim_backend.extension().clear_launches()
    check_linear(one_multiprocessor, pick, "fused", **factors)
    assert gpusim_backend.launched_shapes() == {(1, 4)}


@pytest.mark.gpusim
@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 17])
def test_layers_of_a_few_ctas_are_not_tall(one_multiprocessor: Backend, tokens: int, pick: random.Random) -> None:
    gpusim_backend.extension().clear_launches()
    factors = {"kind": ("uniform", 4), "dtype": torch.float16, "sparse": "half_percent", "shape": (704, 96)}
    check_linear(one_multiprocessor, pick, "fused", tokens=tokens, **factors)
    assert gpusim_backend.launched_shapes() == {(1, 1) if tokens <= 8 else (2, 2) if tokens <= 16 else (4, 4)}


@pytest.mark.gpusim
@pytest.mark.full_matrix
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("kind", FACTORS["kind"], ids=str)
def test_linear_matches_float64_everywhere(
    backend: Backend,
    one_multiprocessor: Backend,
    kind: tuple[Any, ...],
    dtype: torch.dtype,
    tokens: int,
    pick: random.Random,
) -> None:
    factors = {"kind": kind, "dtype": dtype, "tokens": tokens}
    for shape, sparse in product(SHAPES, FACTORS["sparse"]):
        check_linear(backend, pick, "fused", shape=shape, sparse=sparse, **factors)
    for shape, sparse in product(TALL_SHAPES if tokens in TALL_FACTORS["tokens"] else (), FACTORS["sparse"]):
        check_linear(one_multiprocessor, pick, "fused", shape=shape, sparse=sparse, **factors)


@pytest.mark.gpusim
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", FACTORS["kind"], ids=str)
def test_dequantize_matches_the_format_to_the_last_bit(
    backend: Backend, kind: tuple[Any, ...], dtype: torch.dtype, pick: random.Random
) -> None:
    for sparse in SPARSE:
        case = make_case(pick, kind, pick.choice(SHAPES), sparse)
        expected = case.dense.dequantize()
        if case.sparse is not None:
            expected += case.sparse.to_dense()
        w = kernel(backend, kind[0], "dequantize")(case.operands(), dtype)
        torch.testing.assert_close(w, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.gpusim
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("kind", [("uniform", 3), ("lut", 4), ("lut", 4, "shared")], ids=str)
def test_prefill_by_slices(
    backend: Backend, kind: tuple[Any, ...], dtype: torch.dtype, pick: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of 32 rows, the last one shorter and no whole tile."""
    monkeypatch.setattr(cuda, "SCRATCH_BYTES", 2 * 32 * 160)
    check_linear(
        backend, pick, "prefill", kind=kind, dtype=dtype, tokens=70, shape=(75, 160), sparse="half_percent", bias="fp32"
    )


@pytest.mark.gpusim
def test_a_scratch_of_less_than_a_tile_becomes_a_tile(
    backend: Backend, pick: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "SCRATCH_BYTES", 100)
    factors = {"kind": ("uniform", 4), "dtype": torch.float16, "tokens": 65, "shape": (40, 100), "sparse": "full_row"}
    check_linear(backend, pick, "prefill", **factors)


@pytest.mark.gpusim
@pytest.mark.parametrize("tokens", [1, 5, 66])
@pytest.mark.parametrize("format", ["uniform", "lut"])
def test_fp32_inputs_are_computed_in_fp32(backend: Backend, format: str, tokens: int, pick: random.Random) -> None:
    case = make_case(pick, (format, 3), (40, 576), "half_percent")
    x, bias = torch.randn(tokens, 576), torch.randn(40)
    y = kernel(backend, format, "fused")(x, case.operands(), bias, "16bit")
    assert y.dtype == torch.float32
    assert_product(y, x, case, bias)


@pytest.mark.gpusim
def test_bf16_inputs_on_a_device_without_bf16_products(backend: Backend, pick: random.Random) -> None:
    extension = gpusim_backend.extension()
    turing = gpusim_backend.make_backend(extension, "turing", capability=75)
    case = make_case(pick, ("uniform", 4), (40, 100), "half_percent")
    for dtype, kernels in ((torch.bfloat16, {"dequantize_slice"}), (torch.float16, {"linear_kernel"})):
        extension.clear_launches()
        x = torch.randn(3, 100).to(dtype)
        y = kernel(turing, "uniform", "fused")(x, case.operands(), None, "16bit")
        assert_product(y, x, case, phase="prefill")
        launched = {name for launch in extension.launches() for name in kernels if name in launch.kernel}
        assert launched == kernels


@pytest.mark.gpusim
@pytest.mark.parametrize("tokens", [1, 9, 64])
@pytest.mark.parametrize("format", ["uniform", "lut"])
def test_results_are_the_same_every_time(backend: Backend, format: str, tokens: int, pick: random.Random) -> None:
    case = make_case(pick, (format, 4), (33, 2625), "half_percent")
    x = torch.randn(tokens, 2625).half()
    first, second = (kernel(backend, format, "fused")(x, case.operands(), None, "16bit") for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.gpusim
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tokens", [2, 8, 33])
@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_a_bad_input_spoils_its_own_token_only(
    backend: Backend, kind: tuple[str, int], tokens: int, bad: float, pick: random.Random
) -> None:
    case = make_case(pick, kind, (40, 100), "half_percent")
    for dtype in HALF_DTYPES:
        x = torch.randn(tokens, 100).to(dtype)
        linear = kernel(backend, kind[0], "fused")
        clean = linear(x, case.operands(), None, "16bit")
        token = pick.randrange(tokens)
        x[token, pick.randrange(100)] = bad
        y = linear(x, case.operands(), None, "16bit")
        assert not y[token].isfinite().any()
        others = torch.arange(tokens) != token
        assert torch.equal(y[others], clean[others])


@pytest.mark.gpusim
@pytest.mark.parametrize("tokens", [1, 40])
def test_wide_layers_have_32_bit_columns(backend: Backend, tokens: int, pick: random.Random) -> None:
    in_features = 65_536 + 300
    codes = torch.randint(0, 4, (17, in_features), dtype=torch.uint8)
    dense = UniformWeight.pack(codes, torch.rand(17, 1), bits=2, group_size=-1)
    mask = torch.zeros(17, in_features, dtype=torch.bool)
    mask[:, [0, 255, 256, 4095, 4096, 65_535, 65_536, in_features - 1]] = True
    case = Case(dense, SparseWeight.from_dense(100 * torch.randn(17, in_features), mask))
    assert case.sparse is not None
    assert case.sparse.columns.dtype == torch.int32
    x = (torch.randn(tokens, in_features) / 64).to(torch.bfloat16)
    assert_product(kernel(backend, "uniform", "fused")(x, case.operands(), None, "16bit"), x, case)


@pytest.mark.gpusim
@pytest.mark.parametrize("in_features", [65, 70, 127])
@pytest.mark.parametrize("tokens", [1, 9])
def test_padding_holds_anything(backend: Backend, in_features: int, tokens: int, pick: random.Random) -> None:
    """Codes of padded rows and inputs are whatever a checkpoint says; they must not reach y."""
    dense = make_dense(pick, "uniform", 4, 17, in_features)
    assert isinstance(dense, UniformWeight)
    x = torch.randn(tokens, in_features).half()
    padded = tile16.unpack_codes(dense.codes, 4, *tile16.padded_shape(17, in_features))
    padded[17:] = 15
    padded[:, in_features:] = 15
    spoiled = UniformWeight(tile16.pack_codes(padded, 4), dense.scale, dense.zero, 17, in_features, 4, dense.group_size)
    for phase in ("fused", "prefill"):
        clean, other = (
            kernel(backend, "uniform", phase)(x, Case(weight, None).operands(), None, "16bit")
            for weight in (dense, spoiled)
        )
        assert torch.equal(clean, other)


@pytest.mark.gpusim
def test_an_input_may_start_anywhere(backend: Backend, pick: random.Random) -> None:
    case = make_case(pick, ("uniform", 4), (17, 64), "none")
    x = torch.randn(3 * 64 + 1).half()[1:].view(3, 64)
    assert x.data_ptr() % 16
    assert_product(kernel(backend, "uniform", "fused")(x, case.operands(), None, "16bit"), x, case)


@pytest.mark.gpusim
@pytest.mark.parametrize("format", [("uniform", 4), ("lut", 3)])
def test_codes_and_tables_may_start_anywhere(backend: Backend, format: tuple[str, int], pick: random.Random) -> None:
    case = make_case(pick, format, (17, 64), "none")
    operands = case.operands()
    moved = tuple(None if tensor is None else _moved(tensor) for tensor in operands.dense)
    x = torch.randn(3, 64).half()
    y = kernel(backend, format[0], "fused")(x, operands._replace(dense=moved), None, "16bit")
    assert_product(y, x, case)


def _moved(tensor: Tensor) -> Tensor:
    """The same values one element further than a vector load accepts."""
    moved = torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    assert moved.data_ptr() % 16
    return moved


class Operators(TorchDispatchMode):
    """Notes every operator that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **kwargs or {})


VIEWS = {f"aten.{name}" for name in ("view.default", "slice.Tensor", "t.default", "permute.default", "alias.default")}
PRODUCTS = {"aten.mm.out", "aten.addmm.out"}


@pytest.mark.gpusim
@pytest.mark.parametrize("tokens", [1, 64, 65])
@pytest.mark.parametrize("kind", [("uniform", 4), ("lut", 4)], ids=str)
def test_a_call_may_be_captured_in_a_graph(
    backend: Backend, kind: tuple[str, int], tokens: int, pick: random.Random
) -> None:
    """With an index made at load, a call allocates with torch.empty alone, reads nothing back from the device, and
    launches on the caller's stream only.
    """
    case = make_case(pick, kind, (33, 2625), "half_percent")
    sparse = case.sparse
    assert sparse is not None
    index = prepare_sparse(sparse.row_offsets, sparse.columns, sparse.values, 33, 2625)
    x, bias = torch.randn(tokens, 2625).half(), torch.randn(33).half()
    extension = gpusim_backend.extension()
    extension.clear_launches()
    phase = "fused" if tokens <= 64 else "prefill"
    with Operators() as operators:
        kernel(backend, kind[0], phase)(x, case.operands(index), bias, "16bit")
    products = PRODUCTS if phase == "prefill" else set()
    assert operators.names <= {"aten.new_empty.default", *VIEWS, *products}
    assert {launch.stream for launch in extension.launches()} == {gpusim_backend.STREAM}


@pytest.mark.gpusim
def test_the_current_stream_and_the_device_of_x_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        cuda_stream = 77

    class Properties:
        multi_processor_count, major, minor = 132, 9, 0

    asked = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: asked.append(device) or Stream)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: asked.append(device) or Properties)
    monkeypatch.setattr(cuda, "architectures", lambda: ("90",))
    device = torch.device("cuda:3")
    cuda._properties.cache_clear()
    try:
        assert cuda.CudaDevices().launch(device) == (77, 132, 90)
        assert asked == [device, device]
        Properties.major = 8
        with pytest.raises(
            RuntimeError, match=r"compiled for compute capabilities 90, but cuda:2 has 80: install again"
        ):
            cuda.CudaDevices().launch(torch.device("cuda:2"))
    finally:
        cuda._properties.cache_clear()


@pytest.mark.parametrize(
    ("compiled", "capability", "expected"),
    [
        (["80"], 80, True),
        (["80"], 86, True),
        (["86"], 80, False),
        (["80"], 90, False),
        (["80+PTX"], 90, True),
        (["90+PTX"], 80, False),
        (["75", "120"], 120, True),
        ([], 90, False),
    ],
)
def test_which_devices_compiled_kernels_run_on(compiled: list[str], capability: int, expected: bool) -> None:
    assert cuda.covers(compiled, capability) == expected


@pytest.mark.parametrize(
    ("row_offsets", "columns", "message"),
    [
        ([0, 1], [64], r"columns must lie in 0\.\.63, found 64"),
        ([0, 2], [5, 5], "columns must rise strictly within each row"),
        ([0, 3], [5], "row_offsets must end at the number of values"),
        ([1, 1], [5], "row_offsets must start at 0"),
    ],
)
def test_a_damaged_sparse_part_is_refused(row_offsets: list[int], columns: list[int], message: str) -> None:
    offsets = torch.tensor(row_offsets, dtype=torch.int32)
    entries = torch.tensor(columns, dtype=torch.uint16), torch.ones(len(columns), dtype=torch.float16)
    with pytest.raises(ValueError, match=message):
        prepare_sparse(offsets, *entries, len(row_offsets) - 1, 64)


def test_the_sparse_index_holds_every_entry_in_its_place(pick: random.Random) -> None:
    out_features, in_features = 37, 5000
    sparse = make_sparse(pick, "half_percent", out_features, in_features)
    assert sparse is not None
    index = prepare_sparse(sparse.row_offsets, sparse.columns, sparse.values, out_features, in_features)
    tiles, slices = 3, 20
    offsets, entries = index[: tiles * slices + 1].tolist(), index[tiles * slices + 1 :].long() & 0xFFFFFFFF
    assert offsets[0] == 0
    assert offsets[-1] == len(entries) == sparse.nnz
    w = torch.zeros(out_features, in_features)
    for piece in range(tiles * slices):
        places = []
        for entry in entries[offsets[piece] : offsets[piece + 1]].tolist():
            row, input = entry >> 12 & 15, entry & 4095
            first_input = piece % slices * 256
            column = first_input + (input - first_input) % 4096
            assert column < first_input + 256
            value = torch.tensor(entry >> 16, dtype=torch.int32).to(torch.uint16).view(sparse.values.dtype)
            w[piece // slices * 16 + row, column] = value.float()
            places.append((column, row))
        assert places == sorted(places)
    assert torch.equal(w, sparse.to_dense())


LAYERS = {
    "uniform": {"format": "uniform", "bits": 3, "group_size": 64},
    "symmetric": {"format": "uniform", "bits": 4, "symmetric": True, "sparse_percent": 0},
    "rows": {"format": "lut", "bits": 3},
    "shared": {"format": "lut", "bits": 4, "table": "nf4", "group_size": 64},
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request: pytest.FixtureRequest, backend: Backend) -> DenseSparseLinear:
    torch.manual_seed(0)
    with use_backend(backend.name):
        return DenseSparseLinear.from_linear(nn.Linear(100, 50), **request.param)


@pytest.mark.gpusim
def test_opcheck(layer: DenseSparseLinear, backend: Backend) -> None:
    operator = getattr(torch.ops.requant, f"{layer.format}_linear").default
    x = torch.randn(3, 100, dtype=torch.bfloat16, requires_grad=True)
    with use_backend(backend.name):
        torch.library.opcheck(operator, (x, *layer.operands.linear_arguments(layer.bias, "16bit")))


@pytest.mark.gpusim
def test_compiles_without_graph_breaks(layer: DenseSparseLinear, backend: Backend) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with use_backend(backend.name):
        for tokens in (1, 5, 70):
            x = torch.randn(tokens, 100, dtype=torch.float16)
            assert torch.equal(compiled(x), layer(x))


@pytest.mark.gpusim
@pytest.mark.parametrize("shape", [(100,), (1, 100), (2, 3, 100), (40, 100), (0, 100), (2, 0, 100), (5, 14, 100)])
def test_layers_run_on_the_forced_backend(layer: DenseSparseLinear, backend: Backend, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float16)
    with use_backend("reference"):
        expected = layer(x)
    extension = gpusim_backend.extension()
    extension.clear_launches()
    with use_backend(backend.name):
        y = layer(x)
    assert bool(extension.launches()) == bool(x.numel())
    assert y.shape == expected.shape
    torch.testing.assert_close(y, expected, rtol=2**-9, atol=2**-9)


@pytest.mark.gpusim
def test_an_index_of_another_backend_is_not_used(backend: Backend) -> None:
    """A layer that was prepared for the CPU kernels has an index that means something else."""
    layer = DenseSparseLinear.from_linear(nn.Linear(100, 50), bits=3)
    x = torch.randn(3, 100, dtype=torch.float16)
    expected = layer(x)
    with use_backend(backend.name):
        assert torch.allclose(layer(x), expected, rtol=2**-9, atol=2**-9)
        layer.prepare()
    assert torch.allclose(layer(x), expected, rtol=2**-9, atol=2**-9)


@pytest.mark.gpusim
def test_gradients_of_x(layer: DenseSparseLinear, backend: Backend) -> None:
    x = torch.randn(4, 100, requires_grad=True)
    weights = torch.randn(4, 50)
    with use_backend(backend.name):
        (layer(x) * weights).sum().backward()
    assert torch.allclose(x.grad, weights @ layer.dequantize(), atol=1e-4)


@pytest.mark.gpusim
def test_the_backend_refuses_what_it_cannot_reach(backend: Backend) -> None:
    with use_backend(backend.name), pytest.raises(RuntimeError, match="does not serve meta tensors"):
        dispatch.backend_for("meta")


@pytest.mark.gpusim
def test_the_module_for_real_devices_can_be_imported_without_one() -> None:
    module = gpusim_backend.load_module("_cuda")
    assert module.architectures().split()
    assert module.MAX_TOKENS == gpusim_backend.extension().MAX_TOKENS == 64


@pytest.mark.gpu
@pytest.mark.parametrize("factors", COVERING_ARRAY, ids=lambda factors: "-".join(map(str, factors.values())))
@pytest.mark.parametrize("phase", ["fused", "prefill"])
def test_linear_on_a_real_device(factors: dict[str, Any], phase: str, pick: random.Random) -> None:
    assert cuda.BACKEND.unavailable_reason is None
    check_linear(_on_the_device(cuda.BACKEND), pick, phase, **factors)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", FACTORS["kind"], ids=str)
def test_dequantize_on_a_real_device(kind: tuple[Any, ...], dtype: torch.dtype, pick: random.Random) -> None:
    test_dequantize_matches_the_format_to_the_last_bit(_on_the_device(cuda.BACKEND), kind, dtype, pick)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 16, 65])
def test_a_graph_replays_a_call_on_a_real_device(tokens: int) -> None:
    layer = DenseSparseLinear.from_linear(nn.Linear(512, 96).half().cuda(), bits=4)
    x = torch.randn(tokens, 512, dtype=torch.float16, device="cuda")
    layer(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    x.normal_()
    graph.replay()
    torch.testing.assert_close(y, layer(x), rtol=0, atol=0)


def _on_the_device(backend: Backend) -> Backend:
    """The same kernels for arguments and results on the CPU."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.cuda()
        if isinstance(value, tuple):
            parts = map(moved, value)
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return value

    kernels = {
        key: lambda *arguments, run=run: run(*map(moved, arguments)).cpu() for key, run in backend.kernels.items()
    }
    return Backend(backend.name, None, kernels)
