"""Runs the compiled Triton kernels through Triton's own launch path: on a GPU, or their sm_80 PTX in the simulator.

In the simulator Triton compiles for a GPU that is not there; where its driver would load and launch machine code, the
PTX is executed on the CPU tensors that were passed. Every tensor is a region of the device's memory: inputs may only be
read, outputs only be read after they were written.

Run as a program, outside of the interpreter, it reads cases as JSON from its input and writes their errors.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import outside_interpreter
import simulated_gpu
import torch

OUTPUTS = ("y", "w")
"""Arguments that a kernel writes."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class SimulatedDriver:
    """What Triton asks of a driver, answered for one simulated A100 with a few multiprocessors."""

    def __init__(self, multiprocessors: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", 80, 32)
        properties = {"max_shared_mem": 166_912, "multiprocessor_count": multiprocessors}
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: properties,
            load_binary=lambda name, cubin, shared_bytes, device: (name, (name, self.ptx), 0, 0, 1024),
        )
        self.ptx = ""
        """Of the kernel that is being loaded."""
        self.launcher_cls = self._launcher
        self.launches: list[Any] = []
        """A report of the simulator for each."""

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def _launcher(self, source: Any, metadata: Any) -> Any:
        names = [name for name, type in source.signature.items() if type != "constexpr"]

        def launch(x: int, y: int, z: int, _stream: int, function: tuple[str, str], *rest: Any) -> None:
            arguments = dict(zip(source.fn.arg_names, rest[4:], strict=True))
            name, ptx = function
            simulator = simulated_gpu.extension().Simulator()
            simulator.load(ptx)
            access = simulated_gpu.extension().Access
            for argument, value in arguments.items():
                if isinstance(value, torch.Tensor):
                    kind = access.UNINITIALISED if argument in OUTPUTS else access.READ_ONLY
                    simulator.add_region(value.data_ptr(), value.nbytes, kind, argument)
            values = [arguments[name] for name in names]
            values = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in values]
            # Triton appends pointers to scratch memory, which these kernels do not use.
            values += [0] * (len(simulator.parameters(name)) - len(values))
            self.launches.append(
                simulator.launch(name, (x, y, z), metadata.num_warps * 32, values, dynamic_shared_bytes=metadata.shared)
            )

        return launch


def install(multiprocessors: int) -> SimulatedDriver:
    """Makes Triton launch into the simulator, and the backend take CPU tensors; for a process of its own."""
    import triton
    from triton.compiler import CompiledKernel

    from requant_kernels.backends.triton import launch

    driver, load = SimulatedDriver(multiprocessors), CompiledKernel._init_handles

    def load_with_ptx(self: Any) -> None:
        driver.ptx = self.asm["ptx"]
        load(self)

    CompiledKernel._init_handles = load_with_ptx
    triton.runtime.driver.set_active(driver)
    launch.on_device = lambda device: nullcontext()
    return driver


def run_case(case: Mapping[str, Any], device: str) -> float:
    """A case has phase ("linear" or "dequantize"), kind, dtype, tokens, shape, group_size, sparse, bias and seed.

    Returns the error of the product, ||y - reference|| / (||x|| ||W||), the largest over tokens.
    """
    from triton_cases import weight_of

    from requant_kernels.backends.triton import launch

    torch.manual_seed(case["seed"])
    weight, w = weight_of(random.Random(case["seed"]), case)
    dtype = DTYPES[case["dtype"]]
    x = torch.randn(case["tokens"], weight.in_features).to(dtype)
    bias = torch.randn(weight.out_features).to(dtype) if case["bias"] else None
    offset = 0 if bias is None else bias.double()
    tensors = {name: value.to(device) for name, value in weight._asdict().items() if isinstance(value, torch.Tensor)}
    dense = tuple(None if tensor is None else tensor.to(device) for tensor in weight.dense)
    moved = weight._replace(dense=dense, **tensors)
    if case["phase"] == "linear":
        y = launch.linear(x.to(device), moved, None if bias is None else bias.to(device), "16bit").cpu().double()
    else:
        y = x.double() @ launch.dequantize(moved, dtype).cpu().double().T + offset
    size = x.double().norm(dim=1) * w.norm() + (0 if bias is None else bias.double().norm())
    return float(((y - x.double() @ w.T - offset).norm(dim=1) / size).max())


def run_cases(cases: Sequence[Mapping[str, Any]], device: str) -> list[dict[str, Any]]:
    """Of each case the error, and how many kernels the simulator ran for it. `device` is "cuda", or how many
    multiprocessors the simulated one has.
    """
    return outside_interpreter.run_cases(__file__, cases, device)


def main(device: str) -> None:
    """Reads cases, writes results."""
    launches = install(int(device)).launches if device.isdigit() else []
    results = []
    for case in json.load(sys.stdin):
        before = len(launches)
        error = run_case(case, "cpu" if device.isdigit() else device)
        results.append({"error": error, "launches": len(launches) - before})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
