"""Whole kernels as nvcc makes them: right results, exact counts, and planted bugs that are found."""

from __future__ import annotations

from pathlib import Path

import mutations
import numpy as np
import pytest
import sample_kernels
from simulated_gpu import SimulatedGpu, compile_cuda

pytestmark = [pytest.mark.simulator, pytest.mark.nvcc]

SOURCE = Path(__file__).parent / "sample_kernels.cu"

# Mutations that change nothing that matters.
HARMLESS = {
    "look_up": {
        "block barrier weakened to the warp": "each warp reads only the table that it wrote",
        "negated branch": "the other lanes hold the same sum",
        "loop ends too early": "no lane is without a word",
        "other bits of a code": "the sign's share in a division of a positive number",
    },
    "scaled": {
        "loop ends too early": "no lane is without a word",
        "other bits of a code": "the sign's share in a division of a positive number",
    },
    "multiply": {
        "dropped commit of copies": "the last tile is not in this part of the unrolled loop",
        "loop runs once more": "the depth does not end there",
    },
    "sparse": {
        "negated branch": "the other lanes hold the same sum",
        "loop ends too early": "a guard in front of the loop",
    },
}


@pytest.fixture(scope="module")
def ptx() -> str:
    return compile_cuda(SOURCE)


@pytest.mark.parametrize("name", sample_kernels.KERNELS)
def test_results(name: str, ptx: str, rng: np.random.Generator) -> None:
    sample_kernels.KERNELS[name](SimulatedGpu(ptx), rng)


def test_counts(ptx: str, rng: np.random.Generator) -> None:
    report = sample_kernels.multiply(SimulatedGpu(ptx), rng)
    # 2 blocks of 4 warps; 176 / 16 tiles of A, 512 bytes each.
    assert report.matrix_products == 2 * 4 * 11
    assert report.barriers == 2 * 2 * 11
    assert report.shared_loads.wavefronts == report.shared_loads.ideal_wavefronts == 2 * 4 * 11 * 4
    # A through copies of half a row, B in words; every fragment of B fills half a sector per load.
    assert report.global_loads.bytes == 2 * 11 * 512 + 64 * 176 * 2
    assert report.global_loads.sectors == 2 * 11 * 16 + 2 * (64 * 11)
    assert report.global_stores.bytes == 16 * 64 * 4


def test_unpadded_tiles_have_bank_conflicts(tmp_path: Path, rng: np.random.Generator) -> None:
    text = SOURCE.read_text()
    unpadded = tmp_path / "unpadded.cu"
    unpadded.write_text(text.replace("kRowStride = 16 + 8", "kRowStride = 16"))
    assert unpadded.read_text() != text
    report = sample_kernels.multiply(SimulatedGpu(compile_cuda(unpadded)), rng)
    assert report.shared_loads.wavefronts == 2 * report.shared_loads.ideal_wavefronts


@pytest.mark.parametrize("name", sample_kernels.KERNELS)
def test_planted_bugs_are_found(name: str, ptx: str, rng: np.random.Generator) -> None:
    def check(mutated: str) -> None:
        gpu = SimulatedGpu(mutated)
        gpu.options.instruction_limit = 1_000_000  # a mutated loop may not end
        sample_kernels.KERNELS[name](gpu, rng)

    planted = list(mutations.mutate(ptx, name))
    check(ptx)
    left = mutations.survivors(planted, check)
    assert not [str(mutation) for mutation in left if mutation.operator not in HARMLESS[name]]
    assert len(planted) - len(left) >= 20


def test_each_kind_of_bug_is_planted(ptx: str) -> None:
    kinds = {mutation.operator for name in sample_kernels.KERNELS for mutation in mutations.mutate(ptx, name)}
    not_in_the_samples = {operator.name for operator in mutations.OPERATORS} - kinds
    assert not_in_the_samples == {
        "dropped warp barrier",
        "dropped guard",
        "plain store instead of an atomic addition",
    }
