"""Calls of the CUDA backend, written down so that their launches can be repeated with other PTX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gpusim_backend
import mutations
import simulated_gpu
import torch
from torch import Tensor

from requant_kernels.dispatch import Backend


class Recorder(gpusim_backend.SimulatedDevices):
    """A simulated device that keeps the tensors which a call passes to its kernels.

    It has one multiprocessor, so that small layers are not split: every warp goes through its loops many times.
    """

    def __init__(self) -> None:
        super().__init__(gpusim_backend.extension(), multiprocessors=1)
        self.reads: list[Tensor] = []
        self.writes: list[Tensor] = []

    @contextlib.contextmanager
    def running(self, device: torch.device, reads: Iterable[Tensor | None], writes: Iterable[Tensor]) -> Iterator[None]:
        """As always, and remembers the tensors."""
        inputs, outputs = [tensor for tensor in reads if tensor is not None], list(writes)
        self.reads += inputs
        self.writes += outputs
        with super().running(device, inputs, outputs):
            yield


class RecordedCall:
    """One call: its tensors, its launches, and its result `y`."""

    def __init__(self, call: Callable[[Backend], Tensor]) -> None:
        """`call` works with the backend that it is given."""
        recorder = Recorder()
        extension = gpusim_backend.extension()
        extension.clear_launches()
        extension.count_lines(True)
        try:
            self.y = call(gpusim_backend.make_backend(extension, devices=recorder))
        finally:
            extension.count_lines(False)
        self.launches: list[Any] = extension.launches()
        self._reads, self._writes = recorder.reads, recorder.writes
        self._expected = self.y.clone()
        texts = [file.read_text() for file in sorted((gpusim_backend.BUILD / "ptx").glob("*.ptx"))]
        self.ptx = {
            launch.kernel: next(
                mutations.extract(text, launch.kernel) for text in texts if f".entry {launch.kernel}(" in text
            )
            for launch in self.launches
        }
        """Of each kernel, a module with it alone."""

    def executed_lines(self, kernel: str) -> set[int]:
        """The lines of the kernel's module at which at least one thread took part."""
        simulator = simulated_gpu.extension().Simulator()
        simulator.options.count_lines = True
        reports = self._run(simulator, self.ptx)
        return {
            line.line for report in reports if report.kernel == kernel for line in report.lines if line.count.thread
        }

    def repeat(self, kernel: str, ptx: str) -> None:
        """Runs the launches again, one kernel from another text.

        Throws SimulationError or ParseError; AssertionError if y is not the same to the last bit.
        """
        for tensor in self._writes:
            tensor.view(torch.uint8).fill_(0xFF)
        simulator = simulated_gpu.extension().Simulator()
        # A changed loop may not end.
        simulator.options.instruction_limit = 10 * sum(launch.report["total"]["warp"] for launch in self.launches)
        self._run(simulator, self.ptx | {kernel: ptx})
        assert torch.equal(self.y.view(torch.int16), self._expected.view(torch.int16)), "another result"

    def _run(self, simulator: Any, modules: dict[str, str]) -> list[Any]:
        access = simulated_gpu.extension().Access
        for text in modules.values():
            simulator.load(text)
        for kind, tensors in ((access.READ_ONLY, self._reads), (access.UNINITIALISED, self._writes)):
            for number, tensor in enumerate(tensors):
                simulator.add_region(tensor.data_ptr(), tensor.nbytes, kind, f"{kind.name} {number}")
        reports = []
        for launch in self.launches:
            parameters = simulator.parameters(launch.kernel)
            arguments = [launch.arguments[p.offset : p.offset + p.bytes] for p in parameters]
            shared_bytes = launch.dynamic_shared_bytes
            reports.append(simulator.launch(launch.kernel, launch.grid, launch.block, arguments, shared_bytes))
        return reports
