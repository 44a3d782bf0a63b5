"""The CPU kernels with inputs rounded to 8 bits against float64 products of what `formats.activations` makes of x."""

import random
import sys
from dataclasses import replace

import pytest
import torch
from cases import DTYPES, FORMATS, SPARSE, make_dense, make_sparse
from cpu_cases import CpuCase
from torch import Tensor

from requant_kernels import dispatch
from requant_kernels.backends import reference
from requant_kernels.formats import DenseWeight, LutWeight, SparseWeight, UniformWeight
from requant_kernels.formats.activations import round_activations

TOKENS = (1, 2, 3, 5, 6, 7, 16, 31, 32, 33)
OUT_FEATURES = (1, 15, 16, 17, 40, 64)
IN_FEATURES = (32, 63, 64, 72, 100, 160, 257, 320, 520, 576)
GROUP_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 4096, -1)
# ||y - expected|| / (||x|| ||W|| + ||bias||) per token. Tables are rounded to 16 bits. Inputs that are not rounded
# where they should be make a difference of some 2e-4.
TOLERANCE = {torch.float32: 3e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}


class Case(CpuCase):
    def rounded(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.linear(x, bias, activations="int8")

    def expected(self, x: Tensor) -> Tensor:
        y = round_activations(x, self.dense.group_size).double() @ self.dense.dequantize().double().T
        return y if self.sparse is None else y + x.double() @ self.sparse.to_dense().double().T

    def error(self, y: Tensor, expected: Tensor, x: Tensor, bias: Tensor | None = None) -> float:
        """The largest over tokens."""
        size = x.double().norm(dim=1) * self.reference.norm() + (0 if bias is None else bias.double().norm())
        return float(((y.double() - expected).norm(dim=1) / size).max())


def make_weight(pick: random.Random, format: str, bits: int, out_features: int, in_features: int) -> DenseWeight:
    return make_dense(pick, format, bits, out_features, in_features, group_size=pick.choice(GROUP_SIZES))


def make_case(pick: random.Random, format: str, bits: int, sparse: str) -> Case:
    out_features, in_features = pick.choice(OUT_FEATURES), pick.choice(IN_FEATURES)
    return Case(
        make_weight(pick, format, bits, out_features, in_features), make_sparse(pick, sparse, out_features, in_features)
    )


# Of bf16 inputs where there are bf16 products: from how many to how many tokens rounding is faster, and from how many
# rows on it is for more than a batch if something is sparse.
GAINS = {
    ("uniform", 4): range(3, sys.maxsize),
    ("uniform", 8): range(12, sys.maxsize),
    ("lut", 2): range(2, 5),
    ("lut", 3): range(1, 5),
    ("lut", 4): range(2, 5),
}
LEAST_SPARSE_ROWS = 1024


def is_rounded(isa: str, x: Tensor, case: Case) -> bool:
    """Some bf16 inputs are not, where their products are at least as fast."""
    if x.dtype != torch.bfloat16 or isa not in ("avx512bf16", "amx"):
        return True
    _, (batch_tokens, _), _ = dispatch.CPU_PHASES
    assert batch_tokens is not None
    few_sparse_rows = case.sparse is not None and case.dense.out_features < LEAST_SPARSE_ROWS
    if (isa == "amx" or few_sparse_rows) and x.shape[0] > batch_tokens:
        return False
    return x.shape[0] in GAINS.get((case.dense.format, case.dense.bits), range(sys.maxsize))


@pytest.mark.parametrize(("format", "bits"), FORMATS)
@pytest.mark.parametrize("sparse", ["none", "half_percent"])
@pytest.mark.parametrize("out_features", [LEAST_SPARSE_ROWS - 1, LEAST_SPARSE_ROWS])
def test_inputs_are_rounded_where_that_is_faster(
    isa: str, format: str, bits: int, sparse: str, out_features: int, pick: random.Random
) -> None:
    case = Case(make_weight(pick, format, bits, out_features, 128), make_sparse(pick, sparse, out_features, 128))
    for tokens in (1, 2, 3, 4, 5, 11, 12, 32, 33):
        x = torch.randn(tokens, 128).bfloat16()
        exact = x.double() @ case.reference.T
        rounding = case.expected(x) - exact
        share = float(((case.rounded(x).double() - exact) * rounding).sum() / rounding.square().sum())
        assert share == pytest.approx(int(is_rounded(isa, x, case)), abs=0.3), tokens


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_linear_matches_float64(isa: str, format: str, bits: int, dtype: torch.dtype, pick: random.Random) -> None:
    for index, tokens in enumerate(TOKENS):
        case = make_case(pick, format, bits, SPARSE[index % len(SPARSE)])
        x = torch.randn(tokens, case.dense.in_features).to(dtype)
        bias = pick.choice([None, torch.randn(case.dense.out_features).to(dtype), torch.randn(case.dense.out_features)])
        y = case.rounded(x, bias)
        assert y.dtype == dtype
        expected = case.expected(x) if is_rounded(isa, x, case) else x.double() @ case.reference.T
        if bias is not None:
            expected += bias.double()
        assert case.error(y, expected, x, bias) < TOLERANCE[dtype]


@pytest.mark.parametrize(("format", "bits"), FORMATS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_every_group_size(isa: str, format: str, bits: int, group_size: int, pick: random.Random) -> None:
    dense = make_dense(pick, format, bits, 40, 520, group_size=group_size, variant=True)
    case = Case(dense, make_sparse(pick, "half_percent", 40, 520))
    for tokens in (1, 4):
        x = torch.randn(tokens, 520)
        assert case.error(case.rounded(x), case.expected(x), x) < TOLERANCE[x.dtype]


@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_the_reference_backend_rounds_alike(format: str, bits: int, pick: random.Random) -> None:
    case = make_case(pick, format, bits, "half_percent")
    x = torch.randn(3, case.dense.in_features)
    bias = torch.randn(case.dense.out_features)
    y = reference.linear(x, case.operands(), bias, "int8")
    assert case.error(y - bias, case.expected(x), x) < TOLERANCE[x.dtype]


@pytest.mark.parametrize("format", ["uniform", "lut"])
def test_more_tokens_than_one_pass_has(isa: str, format: str, pick: random.Random) -> None:
    case = Case(make_weight(pick, format, 3, 33, 160), make_sparse(pick, "half_percent", 33, 160))
    x = torch.randn(2 * 32 + 5, 160)
    for dtype in DTYPES:
        few = x.to(dtype)
        expected = case.expected(few) if is_rounded(isa, few, case) else few.double() @ case.reference.T
        assert case.error(case.rounded(few), expected, few) < TOLERANCE[dtype]


@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_a_token_does_not_depend_on_the_others(isa: str, format: str, bits: int, pick: random.Random) -> None:
    case = Case(make_weight(pick, format, bits, 40, 320), None)
    x = torch.randn(40, 320)
    y = case.rounded(x)
    assert torch.equal(y[33:34], case.rounded(x[33:34]))
    assert torch.equal(y[3:10], case.rounded(x[3:10]))


@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_zero_tiny_and_large_inputs(isa: str, format: str, bits: int, tokens: int, pick: random.Random) -> None:
    case = Case(make_weight(pick, format, bits, 33, 520), make_sparse(pick, "full_row", 33, 520))
    signs = torch.randn(tokens, 520).sign()
    dense_only = Case(case.dense, None)
    assert torch.equal(case.rounded(0 * signs), torch.zeros(tokens, 33))
    assert torch.equal(dense_only.rounded(1e-36 * signs), torch.zeros(tokens, 33))
    for size in (1e30, 1e-25):
        x = size * signs
        y = case.rounded(x)
        assert y.isfinite().all()
        assert case.error(y, case.expected(x), x) < TOLERANCE[x.dtype]


@pytest.mark.parametrize("size", [0.0, 2.0**-120, 1e30])
def test_tables_of_any_size(isa: str, size: float, pick: random.Random) -> None:
    dense = make_dense(pick, "lut", 4, 17, 100, group_size=-1, variant=True)
    assert isinstance(dense, LutWeight)
    case = Case(replace(dense, table=size * torch.randn(1, 16)), None)
    x = torch.randn(3, 100)
    expected = case.expected(x)
    assert float((case.rounded(x).double() - expected).norm()) <= 2e-4 * float(expected.norm()) + 2.0**-100


def test_a_table_that_is_not_finite_spoils_its_row_only(isa: str, pick: random.Random) -> None:
    dense = make_dense(pick, "lut", 3, 17, 100, variant=False)
    assert isinstance(dense, LutWeight)
    table = dense.table.clone()
    table[5, 2] = float("inf")
    x = torch.randn(2, 100)
    y, clean = Case(replace(dense, table=table), None).rounded(x), Case(dense, None).rounded(x)
    others = torch.arange(17) != 5
    assert torch.equal(y[:, others], clean[:, others])
    assert not y[:, 5].isfinite().any()


@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_wide_layers_have_32_bit_columns(isa: str, tokens: int) -> None:
    in_features = 65_536 + 300
    codes = torch.randint(0, 4, (17, in_features), dtype=torch.uint8)
    dense = UniformWeight.pack(codes, torch.rand(17, 1), bits=2, group_size=-1)
    mask = torch.zeros(17, in_features, dtype=torch.bool)
    mask[:, [0, 255, 256, 65_535, 65_536, in_features - 1]] = True
    case = Case(dense, SparseWeight.from_dense(100 * torch.randn(17, in_features), mask))
    x = torch.randn(tokens, in_features)
    assert case.error(case.rounded(x), case.expected(x), x) < TOLERANCE[x.dtype]
