"""The Viterbi encoder against its plain twin, on every instruction set, and against what is known of the codes."""

import pytest
import torch
from torch import Tensor
from viterbi_reference import encode as encode_plainly

from requant_kernels import trellis_encoder
from requant_kernels.backends import cpu
from requant_kernels.formats import trellis

INSTRUCTION_SETS = cpu.INSTRUCTION_SETS[: len(cpu._cpu.instruction_sets())]


def codebook_of(code: str) -> Tensor | None:
    return trellis_encoder.gaussian_codebook(rounds=5) if code == "hyb" else None


def size_of(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def squared_error(states: Tensor, values: Tensor, targets: Tensor) -> float:
    return float((values[states.long()].flatten(1) - targets).square().mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("code", trellis.CODES)
def test_the_walks_are_closed_and_as_short_as_the_plain_search_finds(code, bits, choose_isa):
    codebook = codebook_of(code)
    values = trellis.code_values(code, codebook)
    targets = torch.randn(1, 256) * size_of(values)
    expected = squared_error(encode_plainly(targets, values, bits), values, targets)
    found = []
    for isa in INSTRUCTION_SETS:
        choose_isa(isa)
        states = trellis_encoder.encode(targets, bits, code, codebook)
        trellis.pack_states(states.unsqueeze(0), bits)  # refuses walks that are not closed
        # Costs are 16-bit integers there; a search with other roundings may close the walk elsewhere.
        assert squared_error(states, values, targets) == pytest.approx(expected, rel=0.03)
        found.append(states)
    assert all(torch.equal(states, found[0]) for states in found)


@pytest.mark.parametrize(
    ("code", "bits", "expected"),
    [
        ("1mad", 2, 0.0690),
        ("1mad", 3, 0.0177),
        ("1mad", 4, 0.0045),
        ("3inst", 2, 0.0690),
        ("3inst", 3, 0.0177),
        ("3inst", 4, 0.0045),
        ("hyb", 2, 0.071),
    ],
)
def test_the_error_on_gaussian_input(code, bits, expected):
    codebook = codebook_of(code)
    values = trellis.code_values(code, codebook)
    targets = torch.randn(16, 256, generator=torch.Generator().manual_seed(bits))
    targets *= trellis_encoder.CODE_SHARE * size_of(values)
    error = squared_error(trellis_encoder.encode(targets, bits, code, codebook), values, targets)
    assert error / float(targets.square().mean()) == pytest.approx(expected, rel=0.08)


def test_large_and_zero_targets_have_walks_too():
    targets = torch.stack([torch.zeros(256), torch.full((256,), 100.0), torch.full((256,), -1e30)])
    states = trellis_encoder.encode(targets, 2, "1mad")
    trellis.pack_states(states.unsqueeze(0), 2)
    means = trellis.code_values("1mad")[states.long()].squeeze(-1).mean(dim=1)
    assert abs(float(means[0])) < 0.1
    assert float(means[1]) > float(means[0]) > float(means[2])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_state(threads):
    targets = torch.randn(5, 256)
    expected = trellis_encoder.encode(targets, 4, "3inst")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(trellis_encoder.encode(targets, 4, "3inst"), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("targets", [torch.zeros(2, 255), torch.zeros(256), torch.full((1, 256), torch.nan)])
def test_wrong_targets_are_refused(targets):
    with pytest.raises(ValueError, match=r"sequences must be finite and of shape \[count, 256\]"):
        trellis_encoder.encode(targets, 2, "1mad")


def test_unsupported_bits_are_refused():
    with pytest.raises(ValueError, match="bits must be one of 2, 3, 4, got 5"):
        trellis_encoder.encode(torch.zeros(1, 256), 5, "1mad")


def test_a_missing_extension_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(cpu, "UNAVAILABLE_REASON", "it is not built")
    with pytest.raises(RuntimeError, match=r"format trellis needs the C\+\+ encoder: it is not built"):
        trellis_encoder.encode(torch.zeros(1, 256), 2, "1mad")


def test_rounding_a_weight_reaches_the_code_s_error_in_spite_of_outliers():
    weight = torch.randn(48, 80) * 0.02
    weight[3, 5] = 2.0
    dense = trellis_encoder.round_to_trellis(weight, bits=4)
    assert dense.code == "1mad"
    error = (dense.dequantize() - weight).square().mean() / weight.square().mean()
    assert float(error) < 0.007
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[3, 5] = True
    without = trellis_encoder.round_to_trellis(weight, bits=4, keep_mask=kept).dequantize() - weight
    assert float(without[~kept].square().mean()) < 0.6 * float((dense.dequantize() - weight)[~kept].square().mean())


def test_a_row_of_zeros_stays_near_zero():
    dense = trellis_encoder.round_to_trellis(torch.zeros(20, 30), bits=2)
    assert float(dense.dequantize().abs().max()) < 1e-5


def test_the_codebook_is_centred_on_half_a_gaussian():
    codebook = trellis_encoder.gaussian_codebook()
    assert codebook.shape == (512, 2)
    assert bool((codebook[:, 0] > 0).all())
    points = torch.randn(2000, 2)
    points[:, 0].abs_()
    assert float(torch.cdist(points, codebook).amin(dim=1).square().mean()) < 0.02
