"""Writes what another executor of PTX needs to run our kernels and to check their results (`make ptx`):

    launches.json     for every case: tensors, then launches in order, with entry symbol, arguments and sizes
    ptx/*.ptx         the kernels
    tensors/*.npy     what the tensors hold: inputs before the first launch, outputs after the last one

docs/cuda.md describes the fields. Run as `python tests/gpusim/write_launches.py FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gpusim_backend
import numpy
import torch
import trellis_cases
from cases import Case, make_dense, make_sparse
from torch import Tensor

from requant_kernels.backends import cuda
from requant_kernels.operands import WeightOperands

KINDS = [("uniform", 2), ("uniform", 3), ("uniform", 4), ("uniform", 8), ("lut", 2), ("lut", 3), ("lut", 4)]
SHAPES = [(40, 100), (33, 2625)]
TOKENS = (1, 9, 33)
DTYPES = (torch.float16, torch.bfloat16)
SPARSE = ("none", "half_percent")
SEED = 0


class Recorder(gpusim_backend.SimulatedDevices):
    """The simulated device, writing down every call."""

    def __init__(self, extension: ModuleType, folder: Path) -> None:
        super().__init__(extension)
        self._folder = folder
        self.cases: list[dict[str, Any]] = []
        self.name = ""

    @contextlib.contextmanager
    def running(self, device: torch.device, reads: Iterable[Tensor | None], writes: Iterable[Tensor]) -> Iterator[None]:
        """Writes the tensors and, afterwards, the results and the launches."""
        inputs = [tensor for tensor in reads if tensor is not None and tensor.numel()]
        outputs = [tensor for tensor in writes if tensor.numel()]
        for tensor in outputs:
            tensor.zero_()  # what no kernel writes, in a workspace, is known as well
        name = f"{len(self.cases):03d}-{self.name}"
        tensors = [self._save(tensor, f"{name}-input{place}", "input") for place, tensor in enumerate(inputs)]
        self._extension.clear_launches()
        with super().running(device, inputs, outputs):
            yield
        tensors += [self._save(tensor, f"{name}-output{place}", "output") for place, tensor in enumerate(outputs)]
        regions = list(zip([*inputs, *outputs], tensors, strict=True))
        launches = [self._describe(launch, regions) for launch in self._extension.launches()]
        self.cases.append({"name": name, "tensors": tensors, "launches": launches})

    def _save(self, tensor: Tensor, name: str, role: str) -> dict[str, Any]:
        """numpy has no bf16: such tensors are stored as uint16, with their own dtype beside."""
        stored = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        numpy.save(self._folder / "tensors" / f"{name}.npy", stored.numpy())
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"name": name, "role": role, "file": f"tensors/{name}.npy", "dtype": dtype, "bytes": tensor.nbytes}

    def _describe(self, launch: Any, regions: list[tuple[Tensor, dict[str, Any]]]) -> dict[str, Any]:
        arguments = []
        for parameter in self._extension.parameters(launch.kernel):
            begin, end = parameter["offset"], parameter["offset"] + parameter["bytes"]
            content = launch.arguments[begin:end]
            arguments.append(
                {key: parameter[key] for key in ("name", "type", "bytes")}
                | {"hex": content.hex(), "pointers": list(_pointers(content, regions))}
            )
        return {
            "entry": launch.kernel,
            "grid": launch.grid,
            "block": launch.block,
            "dynamic_shared_bytes": launch.dynamic_shared_bytes,
            "arguments": arguments,
        }


def _pointers(content: bytes, regions: list[tuple[Tensor, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The aligned 64-bit words that are addresses in a tensor: the executor puts its own there."""
    for offset in range(0, len(content) - 7, 8):
        address = int.from_bytes(content[offset : offset + 8], "little")
        for tensor, saved in regions:
            if tensor.data_ptr() <= address < tensor.data_ptr() + tensor.nbytes:
                yield {"offset": offset, "tensor": saved["name"], "byte": address - tensor.data_ptr()}


def _weights(pick: random.Random) -> Iterator[tuple[str, WeightOperands]]:
    """(name, weight) of every kind and shape, some with a sparse part."""
    for format, bits in KINDS:
        for shape in SHAPES:
            case = Case(make_dense(pick, format, bits, *shape), make_sparse(pick, pick.choice(SPARSE), *shape))
            yield f"{format}{bits}", case.operands()
    for code, bits in trellis_cases.KINDS:
        for shape in SHAPES:
            dense = trellis_cases.random_weight(code, bits, *shape)
            yield f"trellis-{code}{bits}", trellis_cases.operands(dense, make_sparse(pick, pick.choice(SPARSE), *shape))


def main(folder: Path) -> None:
    """Runs all cases, of the same random numbers each time."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tensors").mkdir(parents=True)
    shutil.copytree(gpusim_backend.BUILD / "ptx", folder / "ptx", ignore=shutil.ignore_patterns("*.d"))
    torch.manual_seed(SEED)
    pick = random.Random(SEED)
    recorder = Recorder(gpusim_backend.extension(), folder)
    kernels = cuda.CudaKernels(gpusim_backend.extension(), recorder).table()
    for name, weight in _weights(pick):
        dtype = pick.choice(DTYPES)
        for tokens in TOKENS:
            recorder.name = f"linear-{name}-{tokens}"
            x = torch.randn(tokens, weight.in_features).to(dtype)
            kernels[weight.format, "fused"](x, weight, torch.randn(weight.out_features), "16bit")
        recorder.name = f"dequantize-{name}"
        kernels[weight.format, "dequantize"](weight, dtype)
    (folder / "launches.json").write_text(json.dumps(recorder.cases, indent=1) + "\n", encoding="utf-8")
    launches = sum(len(case["launches"]) for case in recorder.cases)
    print(f"{folder / 'launches.json'}: {len(recorder.cases)} cases, {launches} launches")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
