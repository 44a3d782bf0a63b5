"""Backends under test: every instruction set of the CPU, and simulated GPUs."""

from collections.abc import Callable

import gpusim_backend
import pytest

from requant_kernels.backends import cpu
from requant_kernels.dispatch import Backend


@pytest.fixture(params=cpu.INSTRUCTION_SETS[: len(cpu._cpu.instruction_sets())])
def isa(request: pytest.FixtureRequest, choose_isa: Callable[[str], None]) -> str:
    """In turn every instruction set that runs here."""
    choose_isa(request.param)
    assert cpu.instruction_set() == request.param
    return request.param


@pytest.fixture(scope="module")
def backend() -> Backend:
    """The simulated GPU."""
    return gpusim_backend.register()


@pytest.fixture(scope="module")
def one_multiprocessor() -> Backend:
    """A simulated GPU with one multiprocessor, which few rows fill."""
    extension = gpusim_backend.extension()
    return gpusim_backend.make_backend(extension, devices=gpusim_backend.SimulatedDevices(extension, multiprocessors=1))
