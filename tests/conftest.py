"""Directories of the tiny model, shared by the tests of checkpoints, integrations and commands; and which tests this
machine cannot run.
"""

from __future__ import annotations

import os

# Triton asks when it is first imported; set to 0, tests run its kernels on a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

import importlib.util
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gpusim_backend
import hypothesis
import numpy
import pytest
import seeds
import simulated_gpu
import torch
from tiny_model import SHARD_SIZE, make_model, make_tokenizer, quantize_quickly

from requant_kernels.backends import cpu
from requant_kernels.checkpoint import save_checkpoint


def _missing() -> dict[str, str]:
    """Marker -> why the tests that carry it cannot run here."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "there is no CUDA device"
    if not gpusim_backend.is_built():
        reasons["gpusim"] = "the CUDA kernels are not built for the simulator (make gpusim, which needs nvcc)"
    try:
        simulated_gpu.extension()
    except ImportError:
        reasons["simulator"] = "the simulator of GPU kernels is not built (make test or make gpusim)"
    if simulated_gpu.find_nvcc() is None:
        reasons["nvcc"] = "there is no nvcc"
    if importlib.util.find_spec("triton") is None:
        reasons["triton"] = "the package triton is missing"
    return reasons


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="sources", help="of all random inputs: a number, 'fresh', or of the 'sources'")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settles the run's seed, before workers are given the options and Hypothesis takes its own."""
    # How long drawing takes depends on the machine's other work.
    hypothesis.settings.register_profile("requant", suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("requant")
    words = {"sources": seeds.of_sources, "fresh": lambda: random.SystemRandom().getrandbits(32)}
    chosen = config.option.seed
    try:
        config.option.seed = words[chosen]() if chosen in words else int(chosen)
    except ValueError:
        raise pytest.UsageError(f"--seed {chosen}: expected a number, 'fresh' or 'sources'") from None
    config.option.hypothesis_seed = config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"random inputs: --seed {config.option.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what cannot run here, and the full matrix unless it is asked for."""
    for item in items:
        if "gpusim" in item.path.parts:
            item.add_marker("simulator")
    left_out = set(_missing())
    if "full_matrix" not in config.option.markexpr:
        left_out.add("full_matrix")
    deselected = [item for item in items if any(item.get_closest_marker(marker) for marker in left_out)]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in set(deselected)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says loudly what was left out."""
    for marker, reason in _missing().items():
        terminalreporter.write_line(f"NOT RUN: tests marked {marker}, because {reason}", yellow=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def installed_package_in_subprocesses() -> Iterator[None]:
    """A program that a test starts imports what is installed, not the sources in the folder that it is started in."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONSAFEPATH", "1")
        yield


@pytest.fixture
def choose_isa(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has the CPU kernels run on an instruction set."""

    def choose(name: str) -> None:
        monkeypatch.setenv("REQUANT_CPU_ISA", name)
        cpu.selected_instruction_set.cache_clear()

    yield choose
    cpu.selected_instruction_set.cache_clear()


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """The test's own, which a failing test tells; torch, numpy and Python draw from it."""
    seed = seeds.of_test(request.config.option.seed, request.node.nodeid)
    request.node.add_report_section("setup", "seed", f"{seed}, by --seed {request.config.option.seed}")
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)
    return seed


@pytest.fixture
def pick(seed: int) -> random.Random:
    """The test's random choices."""
    return random.Random(seed)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unquantized model directory; do not modify."""
    directory = tmp_path_factory.mktemp("tiny") / "model"
    make_model().save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized, sharded checkpoint; do not modify."""
    directory = tmp_path_factory.mktemp("tiny") / "quantized"
    save_checkpoint(quantize_quickly(make_model()), make_tokenizer(), directory, max_shard_size=SHARD_SIZE)
    return directory


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the quantized checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def source(tiny_source: Path, tmp_path: Path) -> Path:
    """A copy of the unquantized model to damage."""
    return Path(shutil.copytree(tiny_source, tmp_path / "source"))
