"""The CPU kernels against a float64 product with the format's own dequantized weight, on every instruction set."""

import functools
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, FORMATS, SPARSE, make_dense, make_sparse, relative_error
from cpu_cases import CpuCase, assert_bad_input_spoils_its_token_only, assert_threads_do_not_matter

from requant_kernels.backends import cpu
from requant_kernels.formats import SparseWeight, UniformWeight, tile16
from requant_kernels.formats.activations import ACTIVATIONS

TOKENS = (1, 2, 7, 16, 31, 33)
OUT_FEATURES = (1, 15, 16, 17, 40, 64)
IN_FEATURES = (32, 63, 64, 72, 100, 160, 257, 320, 520, 576)
# ||y - ref|| / ||ref|| per token. bf16: outputs alone are rounded by up to 2^-9 = 2e-3.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}


def make_case(pick: random.Random, format: str, bits: int, sparse: str | None = None) -> CpuCase:
    out_features, in_features = pick.choice(OUT_FEATURES), pick.choice(IN_FEATURES)
    return CpuCase(
        make_dense(pick, format, bits, out_features, in_features),
        make_sparse(pick, sparse or pick.choice(SPARSE), out_features, in_features),
    )


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_linear_matches_float64(
    isa: str, format: str, bits: int, dtype: torch.dtype, tokens: int, pick: random.Random
) -> None:
    for sparse in pick.sample(SPARSE, 3):
        case = make_case(pick, format, bits, sparse)
        x = torch.randn(tokens, case.dense.in_features).to(dtype)
        # Few outputs may cancel, and then a relative error says little: measure against the weights' size instead.
        bias = pick.choice([None, torch.randn(case.dense.out_features).to(dtype), torch.randn(case.dense.out_features)])
        y = case.linear(x, bias)
        assert y.dtype == dtype
        reference = x.double() @ case.reference.T
        size = x.double().norm(dim=1) * case.reference.norm()
        if bias is not None:
            reference += bias.double()
            size += bias.double().norm()
        error = ((y.double() - reference).norm(dim=1) / size).max()
        assert float(error) < TOLERANCE[dtype]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_relative_error_on_a_larger_layer(isa: str, format: str, bits: int, tokens: int, pick: random.Random) -> None:
    case = CpuCase(make_dense(pick, format, bits, 96, 576), make_sparse(pick, "half_percent", 96, 576))
    for dtype, tolerance in TOLERANCE.items():
        if dtype == torch.bfloat16 and tokens >= 32:
            tolerance *= 2.5  # a prefill rounds the weights to bf16; a few table entries round alike in all of a row
        x = torch.randn(tokens, 576).to(dtype)
        assert relative_error(case.linear(x), x.double() @ case.reference.T) < tolerance


@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_every_batch_size(isa: str, format: str, bits: int, pick: random.Random) -> None:
    """There is a kernel for every number of columns, and larger batches are several passes."""
    case = CpuCase(make_dense(pick, format, bits, 40, 352), make_sparse(pick, "half_percent", 40, 352))
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in range(2, 32):
            x = torch.randn(tokens, 352).to(dtype)
            size = x.double().norm(dim=1) * case.reference.norm()
            error = (case.linear(x).double() - x.double() @ case.reference.T).norm(dim=1) / size
            assert float(error.max()) < TOLERANCE[dtype], (dtype, tokens)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_bf16_weights_are_not_rounded(isa: str, format: str, bits: int, tokens: int, pick: random.Random) -> None:
    """With inputs whose only non-zero is 1, a token's output is a column of W: exact up to the output's rounding."""
    case = CpuCase(make_dense(pick, format, bits, 48, 320), make_sparse(pick, "half_percent", 48, 320))
    columns = torch.randint(0, 320, (tokens,))
    x = torch.nn.functional.one_hot(columns, 320).to(torch.bfloat16)
    torch.testing.assert_close(case.linear(x).double(), case.reference.T[columns], rtol=2**-8 + 2**-16, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_dequantize_matches_the_format(
    isa: str, format: str, bits: int, dtype: torch.dtype, pick: random.Random
) -> None:
    for sparse in SPARSE:
        case = make_case(pick, format, bits, sparse)
        expected = case.dense.dequantize()
        if case.sparse is not None:
            expected += case.sparse.to_dense()
        torch.testing.assert_close(case.dequantize(dtype), expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("format", ["uniform", "lut"])
def test_threads_do_not_change_a_bit(isa: str, format: str, tokens: int, activations: str, pick: random.Random) -> None:
    case = CpuCase(make_dense(pick, format, 3, 200, 576), make_sparse(pick, "half_percent", 200, 576))
    for dtype in DTYPES:
        x = torch.randn(tokens, 576).to(dtype)
        assert_threads_do_not_matter(functools.partial(case.linear, x, activations=activations))


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tokens", [1, 2, 7, 31, 33])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_a_bad_input_spoils_its_own_token_only(
    isa: str, format: str, bits: int, tokens: int, bad: float, activations: str, pick: random.Random
) -> None:
    case = CpuCase(make_dense(pick, format, bits, 40, 100), make_sparse(pick, "half_percent", 40, 100))
    compute = functools.partial(case.linear, activations=activations)
    for dtype in DTYPES:
        x = torch.randn(tokens, 100).to(dtype)
        assert_bad_input_spoils_its_token_only(compute, x, pick.randrange(tokens), pick.randrange(100), bad)


@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_large_inputs_stay_finite(isa: str, format: str, bits: int, tokens: int, pick: random.Random) -> None:
    case = CpuCase(make_dense(pick, format, bits, 33, 520), make_sparse(pick, "full_row", 33, 520))
    for dtype in (torch.float32, torch.bfloat16):
        x = (torch.randn(tokens, 520).sign() * 1e30).to(dtype)
        y = case.linear(x)
        assert y.isfinite().all()
        size = 1e30 * case.reference.norm(dim=1) * 520**0.5
        assert ((y.double() - x.double() @ case.reference.T).abs() / size).max() < TOLERANCE[dtype]


@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_wide_layers_have_32_bit_columns(isa: str, tokens: int, pick: random.Random) -> None:
    in_features = 65_536 + 300
    codes = torch.randint(0, 4, (17, in_features), dtype=torch.uint8)
    dense = UniformWeight.pack(codes, torch.rand(17, 1), bits=2, group_size=-1)
    mask = torch.zeros(17, in_features, dtype=torch.bool)
    mask[:, [0, 255, 256, 65_535, 65_536, in_features - 1]] = True
    sparse = SparseWeight.from_dense(100 * torch.randn(17, in_features), mask)
    assert sparse.columns.dtype == torch.int32
    case = CpuCase(dense, sparse)
    x = torch.randn(tokens, in_features)
    assert relative_error(case.linear(x), x.double() @ case.reference.T) < 1e-5


@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_an_index_made_at_load_gives_the_same_result(isa: str, activations: str, pick: random.Random) -> None:
    case = CpuCase(make_dense(pick, "lut", 4, 40, 576), make_sparse(pick, "full_column", 40, 576))
    sparse = case.sparse
    assert sparse is not None
    index = cpu.prepare_sparse(sparse.row_offsets, sparse.columns, sparse.values, 40, 576)
    for tokens in TOKENS:
        x = torch.randn(tokens, 576)
        y = case.linear(x, activations=activations)
        assert torch.equal(case.linear(x, sparse_index=index, activations=activations), y)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("in_features", [65, 70, 127])
@pytest.mark.parametrize("tokens", [1, 3])
def test_padding_holds_anything(isa: str, in_features: int, tokens: int, activations: str, pick: random.Random) -> None:
    """Codes of padded rows and inputs are whatever a checkpoint says; they must not reach y."""
    dense = make_dense(pick, "uniform", 4, 17, in_features)
    x = torch.randn(tokens, in_features)
    padded = tile16.unpack_codes(dense.codes, 4, *tile16.padded_shape(17, in_features))
    padded[17:] = 15
    padded[:, in_features:] = 15
    spoiled = UniformWeight(tile16.pack_codes(padded, 4), dense.scale, dense.zero, 17, in_features, 4, dense.group_size)
    y, clean = (CpuCase(weight, None).linear(x, activations=activations) for weight in (spoiled, dense))
    assert torch.equal(y, clean)


@pytest.mark.parametrize(
    ("row_offsets", "columns", "message"),
    [
        ([0, 1], [64], "columns must lie in 0..63, found 64"),
        ([0, 2], [5, 300], "columns must lie in 0..63"),
        ([0, 3], [5], "row_offsets must rise from 0 to the number of values, 1"),
        ([1, 1], [5], "row_offsets must rise"),
    ],
)
def test_a_damaged_sparse_part_is_refused(row_offsets: list[int], columns: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cpu.prepare_sparse(
            torch.tensor(row_offsets, dtype=torch.int32),
            torch.tensor(columns, dtype=torch.uint16),
            torch.ones(len(columns), dtype=torch.float16),
            len(row_offsets) - 1,
            64,
        )


def test_an_unknown_instruction_set_is_refused(choose_isa: Callable[[str], None]) -> None:
    choose_isa("sse9")
    with pytest.raises(
        ValueError, match="REQUANT_CPU_ISA must be one of scalar, avx2, avx512, avx512bf16, amx, got 'sse9'"
    ):
        cpu.instruction_set()


@pytest.mark.parametrize("first", ["torch", "extension"])
def test_one_openmp_runtime(first: str) -> None:
    """The extension shares torch's OpenMP runtime, whichever of the two is loaded first."""
    load_extension = (
        f"import importlib.util as u; s = u.spec_from_file_location('_cpu', {cpu._cpu.__file__!r})\n"
        "s.loader.exec_module(u.module_from_spec(s))\n"
    )
    load = ["import torch\n", load_extension]
    count = (
        "maps = open('/proc/self/maps').read().split()\n"
        "print(len({name for name in maps if any(part in name for part in ('libgomp', 'libiomp', 'libomp'))}))"
    )
    program = "".join(load if first == "torch" else load[::-1]) + count
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1"
