"""The stand-in for the CUDA runtime: what it lets a launcher do, what it notes, and how failures come to light."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import ModuleType

import gpusim_backend
import pytest

pytestmark = pytest.mark.gpusim

NO_ERROR, CONFIGURATION, VALUE = "no error", "invalid configuration argument", "invalid argument"
ONE = (1, 1, 1)


@pytest.fixture
def runtime() -> Iterator[ModuleType]:
    extension = gpusim_backend.extension()
    extension.clear_launches()
    yield extension
    extension.clear_launches()


@pytest.fixture
def kernel(runtime: ModuleType) -> str:
    """One that does nothing if all of its arguments are zero."""
    (name,) = (name for name in runtime.kernels() if "add_splits_kernel" in name)
    return name


def zeros(runtime: ModuleType, kernel: str) -> bytes:
    """A parameter block."""
    return bytes(max(parameter["offset"] + parameter["bytes"] for parameter in runtime.parameters(kernel)))


@pytest.mark.parametrize(
    ("grid", "block", "answer"),
    [
        (ONE, ONE, NO_ERROR),
        ((3, 2, 2), (32, 2, 2), NO_ERROR),
        ((1, 65_535, 1), ONE, NO_ERROR),
        ((1, 65_536, 1), ONE, CONFIGURATION),
        ((1, 1, 65_536), ONE, CONFIGURATION),
        ((2**31, 1, 1), ONE, CONFIGURATION),
        ((0, 1, 1), ONE, CONFIGURATION),
        (ONE, (0, 1, 1), CONFIGURATION),
        (ONE, (1024, 1, 1), NO_ERROR),
        (ONE, (1025, 1, 1), CONFIGURATION),
        (ONE, (1, 1, 65), CONFIGURATION),
        (ONE, (512, 2, 2), CONFIGURATION),
    ],
)
def test_grids_and_blocks_are_limited(
    runtime: ModuleType, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], answer: str
) -> None:
    assert runtime.launch(kernel, grid, block, 0, zeros(runtime, kernel)) == answer
    assert [(launch.grid, launch.block) for launch in runtime.launches()] == ([(grid, block)] * (answer == NO_ERROR))


def test_the_launch_bounds_of_a_kernel_hold(runtime: ModuleType) -> None:
    name = next(name for name in runtime.kernels() if "dequantize_slice" in name)
    assert runtime.launch(name, ONE, (512, 1, 1), 0, zeros(runtime, name)) == CONFIGURATION


def test_more_than_48_kb_of_shared_memory_must_be_asked_for(runtime: ModuleType, kernel: str) -> None:
    arguments = zeros(runtime, kernel)
    assert runtime.launch(kernel, ONE, ONE, 48 << 10, arguments) == NO_ERROR
    assert runtime.launch(kernel, ONE, ONE, (48 << 10) + 1, arguments) == VALUE
    assert runtime.allow_dynamic_shared_bytes(kernel, 100 << 10) == NO_ERROR
    assert runtime.launch(kernel, ONE, ONE, 100 << 10, arguments) == NO_ERROR
    assert runtime.launch(kernel, ONE, ONE, (100 << 10) + 1, arguments) == VALUE
    assert runtime.allow_dynamic_shared_bytes(kernel, (163 << 10) + 1) == VALUE
    assert runtime.allow_dynamic_shared_bytes(kernel, 48 << 10) == NO_ERROR


def test_static_shared_memory_counts(runtime: ModuleType) -> None:
    name = next(name for name in runtime.kernels() if "dequantize_slice" in name)
    assert runtime.launch(name, ONE, ONE, 48 << 10, zeros(runtime, name)) == VALUE


def test_what_stops_a_kernel_is_told_once(runtime: ModuleType, kernel: str) -> None:
    """One output, whose split is read from the null pointer."""
    arguments = bytearray(zeros(runtime, kernel))
    struct.pack_into("qiqq", arguments, 0, 0, 1, 1, 1)  # partials, splits, tokens, out_features
    assert runtime.launch(kernel, ONE, ONE, 0, bytes(arguments)) == "unspecified launch failure"
    with pytest.raises(runtime.SimulationError, match="add_splits_kernel"):
        runtime.raise_failure()
    runtime.raise_failure()
    assert runtime.launch(kernel, ONE, ONE, 0, zeros(runtime, kernel)) == NO_ERROR


def test_the_simulators_words_replace_those_of_a_launcher(runtime: ModuleType) -> None:
    weight = runtime.uniform_weight(64, 64, 0, 0, 0, 1, 16, 64, 4, -1)
    with pytest.raises(runtime.SimulationError, match="dequantize_slice"):
        runtime.dequantize(weight, 0, 16, 64, 0, 0, 1, 80)


def test_a_launch_that_is_refused_is_the_launchers_error(runtime: ModuleType) -> None:
    """More tiles than a grid has blocks."""
    weight = runtime.uniform_weight(64, 64, 0, 0, 0, 1, 2**31 * 16 + 16, 64, 4, -1)
    with pytest.raises(
        RuntimeError, match="CUDA could not start the dequantize kernel: invalid configuration argument"
    ):
        runtime.dequantize(weight, 0, 2**31 * 16, 64, 0, 0, 1, 80)


def test_the_log_has_stream_and_arguments(runtime: ModuleType) -> None:
    weight = runtime.uniform_weight(64, 64, 0, 0, 0, 1, 16, 64, 4, -1)
    with pytest.raises(runtime.SimulationError):
        runtime.dequantize(weight, 0, 16, 4096, 0, 777, 1, 80)
    (launch,) = runtime.launches()
    assert launch.stream == 777
    assert (4096).to_bytes(8, "little") in launch.arguments
    assert len(launch.arguments) == len(zeros(runtime, launch.kernel))
