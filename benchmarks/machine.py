"""The machine that a benchmark ran on."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from requant_kernels import env

UNKNOWN_CACHE_BYTES = 64 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PEERS = ("onnxruntime", "bitsandbytes", "llama-cpp-python")


def parse_size(text: str) -> int:
    """Bytes of the kernel's "107520K"."""
    text = text.strip()
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else int(text)


def last_level_cache_bytes() -> int:
    """Of one processor; a guess where Linux does not tell."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((parse_size(size.read_text()) for size in sizes), default=UNKNOWN_CACHE_BYTES)


def available_memory_bytes() -> int | None:
    """What new allocations may take without swapping; None where Linux does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def memory_bytes(field: str) -> int:
    """Of this process: `VmRSS` now, `VmHWM` at most since `reset_peak_memory`; 0 where Linux does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def reset_peak_memory() -> None:
    """Gives freed memory back to the system and makes `VmHWM` start anew from what is held, where Linux lets us."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def describe(threads: int) -> dict[str, Any]:
    """Processor, instruction set, caches, threads and versions. Plain JSON types."""
    report = env.report()
    return {
        "cpu": report["cpu"]["model"],
        "architecture": report["cpu"]["architecture"],
        "instruction_set": report["cpu"]["instruction_set"],
        "threads": threads,
        "last_level_cache_bytes": last_level_cache_bytes(),
        "system": platform.platform(),
        "versions": report["versions"] | {name: _version(name) for name in _PEERS},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
