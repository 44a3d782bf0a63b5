"""How the CUDA kernels reach memory, counted by the simulator while they run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import gpusim_backend
import pytest
import torch
from cases import FORMATS, Case, make_dense
from trellis_cases import KINDS, operands, random_weight

pytestmark = pytest.mark.gpusim

SHAPE = (64, 2048)
TALL_SHAPE = (768, 1024)
SECTOR_BYTES = 32
TRELLIS_WAVEFRONTS = {"1mad": 1.1, "3inst": 1.1, "hyb": 2.5}
"""Times the fewest: with 2 and 4 bits, one load of a row's last bits takes two; look-ups of hyb go anywhere."""


@pytest.fixture
def counting() -> Iterator[Any]:
    """The simulated device, which counts every line of PTX."""
    device = gpusim_backend.extension()
    gpusim_backend.register()
    device.clear_launches()
    device.count_lines(True)
    yield device
    device.count_lines(False)
    device.clear_launches()


def lines_of_linear_kernel(device: Any, format: str, weight: Any, tokens: int) -> list[dict[str, Any]]:
    """What every executed line of the linear kernel did in one call, on one multiprocessor."""
    x = torch.randn(tokens, weight.in_features).half()
    devices = gpusim_backend.SimulatedDevices(device, multiprocessors=1)
    gpusim_backend.make_backend(device, devices=devices).kernels[format, "fused"](x, weight, None, "16bit")
    (launch,) = (launch for launch in device.launches() if "linear_kernel" in launch.kernel)
    return [line for line in launch.report["lines"] if line["count"]["warp"]]


def main_loop(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those around the first product that are executed as often as it is."""
    product = next(place for place, line in enumerate(lines) if line["text"].startswith("mma"))
    turns = lines[product]["count"]["warp"]
    before = itertools.takewhile(lambda line: line["count"]["warp"] == turns, reversed(lines[:product]))
    after = itertools.takewhile(lambda line: line["count"]["warp"] == turns, lines[product:])
    return [*before, *after]


def check_traffic(lines: list[dict[str, Any]], most_wavefronts: float = 1.0) -> None:
    """Copies ask for whole sectors; shared memory serves the main loop with so many times the fewest wavefronts."""
    copies = [line["global"] for line in lines if line["text"].startswith("cp.async") and line["global"]["requests"]]
    sectors, asked_bytes = (sum(copy[count] for copy in copies) for count in ("sectors", "bytes"))
    assert asked_bytes > 0
    assert sectors * SECTOR_BYTES <= 1.05 * asked_bytes

    shared = [line for line in main_loop(lines) if line["shared"]["requests"]]
    assert sum(line["text"].startswith("ldmatrix") for line in shared) >= 4
    assert sum(line["text"].startswith("ld.shared") for line in shared) >= 2
    wavefronts, fewest = (sum(line["shared"][count] for line in shared) for count in ("wavefronts", "ideal_wavefronts"))
    assert wavefronts <= most_wavefronts * fewest


@pytest.mark.parametrize("tokens", [1, 8, 16, 32])
@pytest.mark.parametrize("shape", [SHAPE, TALL_SHAPE])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
def test_tile16_kernels(
    counting: Any, format: str, bits: int, shape: tuple[int, int], tokens: int, pick: random.Random
) -> None:
    dense = make_dense(pick, format, bits, *shape, group_size=128)
    check_traffic(lines_of_linear_kernel(counting, format, Case(dense, None).operands(), tokens))


@pytest.mark.parametrize("tokens", [1, 16])
@pytest.mark.parametrize("shape", [SHAPE, TALL_SHAPE])
@pytest.mark.parametrize(("code", "bits"), KINDS)
def test_trellis_kernels(counting: Any, code: str, bits: int, shape: tuple[int, int], tokens: int) -> None:
    lines = lines_of_linear_kernel(counting, "trellis", operands(random_weight(code, bits, *shape)), tokens)
    check_traffic(lines, TRELLIS_WAVEFRONTS[code])
