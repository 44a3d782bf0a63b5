"""What pip builds from the sources: a pure-Python wheel on request, and a source distribution that can be compiled."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CMakeLists.txt")
FOLDERS = ("csrc", "requant_kernels", "python")
PROGRAM = """
import sys
# An editable installation answers for missing submodules of any package of that name.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import torch, requant_kernels
from requant_kernels import DenseSparseLinear, env
layer = DenseSparseLinear.from_linear(torch.nn.Linear(64, 32))
print(requant_kernels.__file__, env.report()["serving"]["cpu"], tuple(layer(torch.randn(2, 64)).shape))
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what is distributed, without build products."""
    copy = tmp_path / "sources"
    copy.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "build")
        )
    return copy


def build(sources: Path, kind: str, **environment: str) -> subprocess.CompletedProcess:
    program = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(sources)!r}))"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=sources,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_without_extensions_the_wheel_is_pure_and_runs_on_the_reference(sources: Path, tmp_path: Path):
    finished = build(sources, "wheel", REQUANT_EXTENSIONS="0")
    assert finished.returncode == 0, finished.stderr
    (wheel,) = sources.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]
        assert "requant_kernels/py.typed" in archive.namelist()
        assert "requant/cli/__init__.py" in archive.namelist()
        archive.extractall(tmp_path / "site")
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.stdout.split() == [
        str(tmp_path / "site" / "requant_kernels" / "__init__.py"), "reference", "(2,", "32)"
    ], finished.stderr  # fmt: skip


def test_the_source_distribution_holds_what_a_compiler_needs(sources: Path):
    finished = build(sources, "sdist")
    assert finished.returncode == 0, finished.stderr
    (archive,) = sources.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    needed = {str(path.relative_to(sources)) for path in (sources / "csrc").rglob("*.[hc]*")} | {"CMakeLists.txt"}
    assert needed <= names


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"REQUANT_CUDA": "1"}, "REQUANT_CUDA=1, but this version has no CUDA sources; use auto or 0"),
        ({"REQUANT_CUDA": "yes"}, "REQUANT_CUDA must be one of auto, 0, 1, got 'yes'"),
        ({"REQUANT_EXTENSIONS": "off"}, "REQUANT_EXTENSIONS must be one of 0, 1, got 'off'"),
    ],
)
def test_a_wrong_build_switch_is_one_clear_line(sources: Path, environment: dict[str, str], message: str):
    finished = build(sources, "wheel", **environment)
    assert finished.returncode != 0
    assert f"error: {message}" in finished.stderr


def test_without_a_compiler_the_build_says_what_is_needed(sources: Path, tmp_path: Path):
    empty = tmp_path / "bin"
    empty.mkdir()
    finished = build(sources, "wheel", PATH=str(empty), CXX="", CC="")
    assert finished.returncode != 0
    assert "REQUANT_EXTENSIONS=0 installs without it" in finished.stderr
