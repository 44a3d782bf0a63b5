"""What pip builds from the sources: a pure-Python wheel on request, and a source distribution that can be compiled."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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
        (
            {"REQUANT_CUDA": "1", "CUDA_HOME": "/nowhere"},
            "REQUANT_CUDA=1, but there is no nvcc in CUDA_HOME/bin, /nowhere/bin; install a CUDA toolkit",
        ),
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


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts before everything else in PATH."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_HOME", raising=False)

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_requant_kernels", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("capabilities", "architectures", "reason"),
    [
        ("9.0", "90", ""),
        ("12.0\n8.9\n8.9", "89;120", ""),
        ("6.1\n8.0", "80", ""),
        ("7.0", "", "the GPU's compute capability is below 7.5"),
        ("", "", "no NVIDIA GPU was found when this was installed (REQUANT_CUDA=1 builds without one)"),
    ],
)
def test_auto_builds_for_the_gpus_of_this_machine(
    setup: ModuleType, commands: Callable[[str, str], None], capabilities: str, architectures: str, reason: str
):
    commands("nvidia-smi", f"printf '{capabilities}'")
    commands("nvcc", "")
    assert setup.plan_cuda("auto") == (architectures, reason)


def test_a_gpu_without_nvcc_is_a_reason(setup: ModuleType, commands: Callable[[str, str], None], monkeypatch):
    commands("nvidia-smi", "echo 9.0")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert setup.plan_cuda("auto") == (
        "",
        "there was no nvcc in CUDA_HOME/bin, /nowhere/bin, when this was installed",
    )


def test_the_architectures_may_be_named(setup: ModuleType, commands: Callable[[str, str], None], monkeypatch):
    commands("nvcc", "")
    assert setup.plan_cuda("1") == (setup.ALL_CUDA_ARCHITECTURES, "")
    monkeypatch.setenv("REQUANT_CUDA_ARCHS", "80;90+PTX")
    assert setup.plan_cuda("1") == ("80;90+PTX", "")
    assert setup.plan_cuda("0") == ("", "installed with REQUANT_CUDA=0")


# Makes an empty module of every target but the CUDA kernels, which fail to compile.
BROKEN_CUDA = """
case "$*" in
  *--build*_cuda) echo "nvcc says no" >&2; exit 1;;
  *--build*) mkdir -p "$2/module"; touch "$2/module/_cpu$SUFFIX";;
esac
"""


@pytest.mark.parametrize("choice", ["auto", "1"])
def test_cuda_kernels_that_do_not_compile(
    sources: Path, commands: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, choice: str
):
    commands("nvidia-smi", "echo 9.0")
    commands("nvcc", "")
    commands("cmake", BROKEN_CUDA)
    monkeypatch.setenv("SUFFIX", sysconfig.get_config_var("EXT_SUFFIX"))
    finished = build(sources, "wheel", REQUANT_CUDA=choice)
    assert "nvcc says no" in finished.stderr
    if choice == "1":
        assert finished.returncode != 0
        assert "error: building requant_kernels._cuda failed" in finished.stderr
    else:
        assert finished.returncode == 0, finished.stderr
        assert "warning: building requant_kernels._cuda failed" in finished.stderr
        (wheel,) = sources.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            note = archive.read("requant_kernels/cuda_missing.txt").decode()
            assert not [name for name in archive.namelist() if "_cuda." in name and name.endswith(".so")]
        assert note.startswith("building requant_kernels._cuda failed")


WORKING_CMAKE = """
case "$*" in
  *--build*) mkdir -p "$2/module"; touch "$2/module/${4}$SUFFIX";;
  *) echo "configured: $*";;
esac
"""


def test_a_wheel_has_the_cuda_kernels_that_it_was_built_with(
    sources: Path, commands: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
):
    """And none that an earlier build in the same folder left behind."""
    commands("nvcc", "")
    commands("cmake", WORKING_CMAKE)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    monkeypatch.setenv("SUFFIX", suffix)
    for choice, architectures, content in (
        ("1", "-DREQUANT_CUDA_ARCHS=80;90+PTX", {f"_cuda{suffix}", "_cuda.pyi"}),
        ("0", "-DREQUANT_CUDA_ARCHS=", {"cuda_missing.txt", "_cuda.pyi"}),
    ):
        finished = build(sources, "wheel", REQUANT_CUDA=choice, REQUANT_CUDA_ARCHS="80;90+PTX")
        assert finished.returncode == 0, finished.stderr
        last = [line for line in finished.stdout.splitlines() if line.startswith("configured: ")][-1]
        assert last.split()[-1] == architectures
        (wheel,) = sources.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = {name.removeprefix("requant_kernels/") for name in archive.namelist()}
        assert {name for name in names if "cuda" in name and "/" not in name} == content
        wheel.unlink()
