"""Bugs planted into the PTX of the shipped CUDA kernels: the simulator or a wrong result gives them away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import gpusim_backend
import pytest
import torch
from cases import Case, make_dense, make_sparse
from mutations import OPERATORS, Mutation, mutate
from torch import Tensor

from requant_kernels.backends.cuda import CudaKernels, Launch

pytestmark = pytest.mark.gpusim

# Every place counts: no instruction of these kinds is there for nothing.
ALWAYS_FOUND = {
    "dropped block barrier",
    "block barrier weakened to the warp",
    "missing lane",
    "shuffle over no distance",
    "swapped matrix fragments",
    "transposed matrix load",
}
# Some places are of no effect in one call: branches that it does not take, values that it does not need, copies of what
# does not exist.
FOUND_SOMEWHERE = {
    "dropped commit of copies",
    "dropped copy",
    "dropped store",
    "dropped wait for copies",
    "dropped warp barrier",
    "loop ends too early",
    "loop runs once more",
    "mask one bit short",
    "negated branch",
    "other bits of a code",
    "product without its sum",
    "shifted global load",
    "shifted global store",
    "shifted shared load",
    "shifted shared store",
    "swapped operands of a subtraction",
    "waits for one copy group less",
}
COPIES_AND_BARRIERS = tuple(
    operator for operator in OPERATORS if any(word in operator.name for word in ("copy", "copies", "barrier", "matrix"))
)


class OneMultiprocessor(gpusim_backend.SimulatedDevices):
    """A device so small that no layer is split: every warp then works on many spans."""

    def launch(self, device: torch.device) -> Launch:
        """On STREAM."""
        return super().launch(device)._replace(multiprocessors=1)


def single_kernel(entry: str) -> str:
    """A PTX module of that kernel alone."""
    for file in (gpusim_backend.BUILD / "ptx").glob("*.ptx"):
        head, *entries = file.read_text().split(".visible .entry ")
        for text in entries:
            if text.startswith(f"{entry}("):
                return f"{head}.visible .entry {text}"
    raise AssertionError(f"no PTX of {entry}")


class Shipped:
    """A kernel as it is shipped, and a call that runs it."""

    def __init__(self, pick: random.Random, format: str, bits: int, tokens: int) -> None:
        self.extension = gpusim_backend.extension()
        kernels = CudaKernels(self.extension, OneMultiprocessor(self.extension)).table()
        # Without a zero: its product with ones would not change if fragments of ones were swapped.
        dense = make_dense(pick, format, bits, 66, 3400, variant=False, group_size=128)
        case = Case(dense, make_sparse(pick, "half_percent", 66, 3400))
        x = torch.randn(tokens, 3400).half()
        self.call: Callable[[], Tensor] = lambda: kernels[format, "fused"](x, case.operands(), None, "16bit")
        self.expected = x.double() @ case.reference.T
        # Of y in fp16, of table entries in fp16, and of sums in fp32.
        size = x.double().abs() @ case.reference.abs().T
        self.bound = 2.0**-11 * self.expected.abs() + (2.0**-11 if format == "lut" else 2.0**-18) * size + 1e-6
        self.extension.clear_launches()
        assert self.is_right()
        (launch,) = self.extension.launches()
        self.entry = launch.kernel
        self.ptx = single_kernel(self.entry)

    def is_right(self) -> bool:
        """Whether the kernel that is loaded gives the expected result."""
        return bool(((self.call().double() - self.expected).abs() <= self.bound).all())

    def finds(self, mutation: Mutation) -> bool:
        """Whether a planted bug shows."""
        try:
            self.extension.load_ptx(mutation.ptx)
            return not self.is_right()
        except (RuntimeError, ValueError):
            return True

    def restore(self) -> None:
        """Loads what is shipped."""
        self.extension.load_ptx(self.ptx)


@pytest.fixture(params=[("uniform", 4, 1), ("lut", 3, 8)], ids=str)
def shipped(request: pytest.FixtureRequest, pick: random.Random) -> Iterator[Shipped]:
    kernel = Shipped(pick, *request.param)
    yield kernel
    kernel.restore()


@pytest.mark.slow
def test_bugs_in_shipped_kernels_are_found(shipped: Shipped) -> None:
    everything = "Uniform" in shipped.entry
    operators = OPERATORS if everything else COPIES_AND_BARRIERS
    found: Counter[str] = Counter()
    missed = []
    for mutation in mutate(shipped.ptx, shipped.entry, operators):
        if shipped.finds(mutation):
            found[mutation.operator] += 1
        else:
            missed.append(mutation)
    shipped.restore()
    assert shipped.is_right()
    assert not [str(mutation) for mutation in missed if mutation.operator in ALWAYS_FOUND]
    names = {operator.name for operator in operators}
    assert set(found) >= names & (ALWAYS_FOUND | FOUND_SOMEWHERE)
