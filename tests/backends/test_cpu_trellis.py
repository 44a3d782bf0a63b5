"""The CPU kernels of format `trellis` against float64 with the dequantized weight, on every instruction set."""

import functools

import pytest
import torch
from cpu_cases import assert_bad_input_spoils_its_token_only, assert_threads_do_not_matter, linear
from torch import Tensor
from trellis_cases import DTYPES, KINDS, operands, random_sparse, random_weight

from requant_kernels.backends import cpu
from requant_kernels.formats import TrellisWeight, trellis
from requant_kernels.trellis_encoder import encode

SHAPES = [(16, 16), (48, 576), (40, 100), (1, 33), (96, 256), (17, 7)]
TOKENS = (1, 2, 3, 7, 16, 31, 33)
# ||y - reference|| / ||reference||.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("code", "bits"), KINDS)
def test_linear_matches_float64(isa: str, code: str, bits: int, dtype: torch.dtype) -> None:
    for index, tokens in enumerate(TOKENS):
        shape = SHAPES[int(torch.randint(len(SHAPES), ()))]
        dense = random_weight(code, bits, *shape)
        sparse = random_sparse(*shape, 0.01) if index % 2 else None
        bias = torch.randn(shape[0]).to(dtype) if index % 3 else None
        x = torch.randn(tokens, shape[1]).to(dtype)
        y = linear(x, operands(dense, sparse), bias)
        assert y.dtype == dtype
        w = dense.dequantize().double() + (0 if sparse is None else sparse.to_dense().double())
        reference = x.double() @ w.T + (0 if bias is None else bias.double())
        # A single row can be small by chance.
        size = x.double().norm(dim=1) * w.norm() + (0 if bias is None else bias.double().norm())
        assert float(((y.double() - reference).norm(dim=1) / size).max()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("code", "bits"), KINDS)
def test_error_of_a_token_is_that_of_rounding_to_its_dtype(isa: str, code: str, bits: int, dtype: torch.dtype) -> None:
    dense = random_weight(code, bits, 208, 528)
    for tokens in (1, 5, 40):
        x = torch.randn(tokens, 528).to(dtype)
        assert_rounded(linear(x, operands(dense)), x, dense)


def assert_rounded(y: Tensor, x: Tensor, dense: TrellisWeight) -> None:
    """Relative to the size of a token's outputs, the error is within the tolerance, on the whole and nearly so for
    every token: that of one with a few hundred outputs varies by a tenth.
    """
    reference = x.double() @ dense.dequantize().double().T
    error = (y.double() - reference).norm(dim=1) / reference.norm(dim=1)
    assert error.mean() < TOLERANCE[x.dtype]
    assert error.max() < 1.25 * TOLERANCE[x.dtype]


@pytest.mark.parametrize("in_features", [256, 8192])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums_do_not_overflow(isa: str, sign: int, in_features: int) -> None:
    # One input in front is a row of equal numbers in the rotated basis, and the weights are as large as a walk can be.
    states = encode(torch.full((1, 256), sign * 1e3), 4, "1mad").expand(1, in_features // 16, 256)
    signs = torch.ones(in_features, dtype=torch.int64)
    dense = TrellisWeight.pack(states, torch.ones(16), signs, signs[:16], bits=4, code="1mad")
    for dtype in DTYPES:
        x = torch.zeros(1, in_features, dtype=dtype)
        x[0, 0] = 7
        assert_rounded(linear(x, operands(dense)), x, dense)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 3, 33])
def test_one_huge_input_and_none_at_all(isa: str, tokens: int, dtype: torch.dtype) -> None:
    dense = random_weight("1mad", 2, 208, 528)
    x = torch.randn(tokens, 528).to(dtype)
    x[0, 17] = 3e3
    assert_rounded(linear(x, operands(dense)), x, dense)
    bias = torch.randn(208).to(dtype)
    assert torch.equal(linear(torch.zeros_like(x), operands(dense), bias), bias.expand(tokens, 208))


@pytest.mark.parametrize("size", [1e-42, 1e-30])
def test_tiny_inputs(isa: str, size: float) -> None:
    dense = random_weight("1mad", 2, 208, 528)
    x = (torch.randn(1, 528) * size).bfloat16()
    y = linear(x, operands(dense))
    assert y.isfinite().all()
    if size > 1e-32:
        assert_rounded(y, x, dense)


def test_inputs_beyond_one_span_of_the_sparse_index(isa: str) -> None:
    out_features, in_features = 48, 66040
    dense, sparse = random_weight("1mad", 2, out_features, in_features), random_sparse(out_features, in_features, 0.001)
    w = dense.dequantize().double() + sparse.to_dense().double()
    for tokens in (1, 9):
        x = torch.randn(tokens, in_features).bfloat16()
        reference = x.double() @ w.T
        # Of all tokens together: the error of 48 outputs alone varies by a sixth.
        error = (linear(x, operands(dense, sparse)).double() - reference).norm() / reference.norm()
        assert float(error) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_tokens_than_one_pass_has(isa: str, dtype: torch.dtype) -> None:
    dense, sparse = random_weight("1mad", 2, 48, 144), random_sparse(48, 144, 0.01)
    bias, x = torch.randn(48).to(dtype), torch.randn(1030, 144).to(dtype)
    reference = x.double() @ (dense.dequantize().double() + sparse.to_dense().double()).T + bias.double()
    y = linear(x, operands(dense, sparse), bias).double()
    for tokens in torch.arange(1030).tensor_split(10):
        assert (y - reference)[tokens].norm() / reference[tokens].norm() < TOLERANCE[dtype]


@pytest.mark.parametrize(("code", "bits"), KINDS)
def test_dequantize_matches_the_format(isa: str, code: str, bits: int) -> None:
    dense, sparse = random_weight(code, bits, 40, 100), random_sparse(40, 100, 0.01)
    w = cpu.BACKEND.kernels["trellis", "dequantize"](operands(dense, sparse), torch.float32)
    torch.testing.assert_close(w, dense.dequantize() + sparse.to_dense(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 5, 31, 70])
@pytest.mark.parametrize("code", trellis.CODES)
def test_threads_do_not_change_a_bit(isa: str, code: str, tokens: int) -> None:
    weight = operands(random_weight(code, 3, 200, 576), random_sparse(200, 576, 0.01))
    for dtype in DTYPES:
        assert_threads_do_not_matter(functools.partial(linear, torch.randn(tokens, 576).to(dtype), weight))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("tokens", [1, 4, 7, 33])
@pytest.mark.parametrize("code", trellis.CODES)
def test_a_bad_input_spoils_its_own_token_only(isa: str, code: str, tokens: int, bad: float) -> None:
    weight = operands(random_weight(code, 2, 40, 100), random_sparse(40, 100, 0.01))
    compute = functools.partial(linear, weight=weight)
    for dtype in DTYPES:
        assert_bad_input_spoils_its_token_only(compute, torch.randn(tokens, 100).to(dtype), tokens // 2, 17, bad)


@pytest.mark.parametrize("tokens", [1, 7, 33])
def test_large_inputs_stay_finite(isa: str, tokens: int) -> None:
    dense = random_weight("3inst", 4, 33, 520)
    x = torch.randn(tokens, 520).sign() * 1e30
    reference = x.double() @ dense.dequantize().double().T
    y = linear(x, operands(dense))
    assert y.isfinite().all()
    assert float(((y.double() - reference).norm(dim=1) / reference.norm(dim=1)).max()) < 1e-4
