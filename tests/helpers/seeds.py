"""Where the tests' random inputs come from.

A run has one seed, and every test draws its own from it and from its name, so that neither the order of the tests nor
the number of workers changes what a test sees. Unless told otherwise, the run's seed is a digest of the project's own
files: after every change the inputs are new, and whoever runs the same files runs the same inputs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDERS = ("csrc", "requant_kernels", "python", "tests", "benchmarks")
SUFFIXES = {".py", ".h", ".cpp", ".cu", ".cuh"}
ROOT = Path(__file__).resolve().parents[2]


def of_sources(root: Path = ROOT) -> int:
    """A digest of the names and contents of all source files below `root`."""
    digest = hashlib.sha256()
    paths = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return int.from_bytes(digest.digest()[:4], "little")


def of_test(run_seed: int, name: str) -> int:
    """The seed of one test of a run."""
    return int.from_bytes(hashlib.sha256(f"{run_seed} {name}".encode()).digest()[:4], "little")
