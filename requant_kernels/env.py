"""What is live on this machine, and why the rest is not: the facts behind `requant env`."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from requant_kernels import dispatch
from requant_kernels.backends import cpu, cuda
from requant_kernels.version import __version__

PACKAGES = ("torch", "transformers", "safetensors", "triton", "gguf", "datasets")
SETTINGS = (
    "REQUANT_BACKEND",
    "REQUANT_CPU_ISA",
    "REQUANT_ROUTES",
    "REQUANT_TRITON_TILES",
    "REQUANT_CACHE",
    "OMP_NUM_THREADS",
    "TRITON_INTERPRET",
)


def report() -> dict[str, Any]:
    """Versions, processor, devices, settings, and per backend "live" or the reason why not. Plain JSON types."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"requant-kernels": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "cpu": {
            "model": _cpu_model(),
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
            "instruction_set": _instruction_set(),
        },
        "gpus": gpus,
        "cuda_kernels": {"compiled_for": ", ".join(cuda.architectures())} if cuda.architectures() else {},
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "backends": dispatch.backend_report(),
        "serving": {device: dispatch.backend_for(device).name for device in ("cpu", *(["cuda"] if gpus else []))},
    }


def _instruction_set() -> str | None:
    """Which of the CPU backend's instruction sets is in use; None if the backend is not live."""
    return cpu.instruction_set() if dispatch.backends()["cpu"].unavailable_reason is None else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    """The processor's name; /proc/cpuinfo knows it on Linux, elsewhere platform does its best."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            names = (line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name"))
            return next(names, platform.processor())
    except OSError:
        return platform.processor()
