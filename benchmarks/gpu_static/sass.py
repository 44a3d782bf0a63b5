"""Machine code of one kernel as nvdisasm prints it: instructions, loops, and ways through them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

LINE = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?P<predicate>@!?U?P\w+\s+)?(?P<operation>[A-Z][\w.]*)(?P<operands>.*)")
LABEL = re.compile(r"(?P<label>\.L\w+):")
OPERAND_PREDICATE = re.compile(r"\s*!?U?P\d")
"""BRA.U UP0, ..."""
TARGET = re.compile(r"`\((?P<label>\.L\w+)\)")

CLASSES = {
    "tensor": ("HMMA", "IMMA"),
    "cp.async": ("LDGSTS", "LDGDEPBAR"),
    "ldg": ("LDG",),
    "lds": ("LDSM", "LDS"),
    "sts": ("STS",),
    "spill": ("LDL", "STL"),
    "shuffle": ("SHFL",),
    "fp16": ("HFMA2", "HADD2", "HMUL2"),
    "fp32": ("FFMA", "FADD", "FMUL"),
    "bytes": ("PRMT",),
    "control": ("BRA", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "WARPSYNC", "BAR", "DEPBAR", "NOP"),
}
"""Class -> how its operations begin; the first class that fits. What fits none is "integer"."""

JUMPS = ("BRA", "CALL")
ENDS = ("EXIT", "RET")
# To code for warps whose lanes have parted. Here they never have. (Older architectures jump around it: BRA.CONV.)
NEVER_TAKEN = "BRA.DIV"


class Instruction(NamedTuple):
    """One line."""

    operation: str
    predicated: bool
    target: str
    """Label that it may jump to, or nothing."""

    @property
    def kind(self) -> str:
        """Its class."""
        return next((kind for kind, names in CLASSES.items() if self.operation.startswith(names)), "integer")


class Loop(NamedTuple):
    """Instructions first..last; the last one jumps back to the first."""

    first: int
    last: int


class Code:
    """The instructions of one kernel and where they may go."""

    def __init__(self, text: str) -> None:
        self.instructions: list[Instruction] = []
        self._labels: dict[str, int] = {}
        for line in text.splitlines():
            if label := LABEL.match(line):
                self._labels[label["label"]] = len(self.instructions)
            elif found := LINE.match(line):
                operation, operands = found["operation"], found["operands"]
                target = TARGET.search(operands)
                predicated = bool(found["predicate"] or OPERAND_PREDICATE.match(operands))
                self.instructions.append(Instruction(operation, predicated, target["label"] if target else ""))

    def kind(self, index: int) -> str:
        """Class of one instruction."""
        return self.instructions[index].kind

    def successors(self, index: int) -> Iterator[int]:
        """What may be executed next."""
        name, predicated, target = self.instructions[index]
        # A call of a function outside, which only parted warps make, comes back.
        jumps = name.startswith(JUMPS) and target in self._labels and name != NEVER_TAKEN
        if jumps:
            yield self._labels[target]
        ends = (jumps or name.startswith(ENDS)) and not predicated
        if not ends and index + 1 < len(self.instructions):
            yield index + 1

    @cached_property
    def reachable(self) -> set[int]:
        """From the first instruction."""
        seen, waiting = {0}, [0]
        while waiting:
            for index in self.successors(waiting.pop()):
                if index not in seen:
                    seen.add(index)
                    waiting.append(index)
        return seen

    @cached_property
    def loops(self) -> list[Loop]:
        """Short ones first: inner loops before those around them."""
        backward = {
            Loop(target, index) for index in self.reachable for target in self.successors(index) if target < index
        }
        return sorted(backward, key=lambda loop: loop.last - loop.first)

    @cached_property
    def outside_loops(self) -> set[int]:
        """What is executed once at most."""
        return self.reachable - {index for loop in self.loops for index in range(loop.first, loop.last + 1)}

    def loop_with(self, *kinds: str) -> Loop:
        """The innermost loop that has instructions of all these classes. Raises ValueError if there is none."""
        for loop in self.loops:
            if {self.kind(index) for index in range(loop.first, loop.last + 1)}.issuperset(kinds):
                return loop
        raise ValueError(f"no loop with {', '.join(kinds)}")

    def loop_around(self, inner: Loop) -> Loop:
        """The next one. Raises ValueError if there is none."""
        for loop in self.loops:
            if loop.first < inner.first and loop.last > inner.last:
                return loop
        raise ValueError("no loop around it")

    def exits(self, loop: Loop) -> set[int]:
        """What may be executed first after a loop."""
        inside = range(loop.first, loop.last + 1)
        return {target for index in inside for target in self.successors(index) if target not in inside}

    @cached_property
    def ends(self) -> set[int]:
        """Where a thread may be finished."""
        return {index for index in self.reachable if self.instructions[index].operation.startswith(ENDS)}

    def distance(self, firsts: Collection[int], lasts: Collection[int]) -> int:
        """How many instructions come before one of `lasts` on the shortest way from one of `firsts`. Raises ValueError
        if there is none.
        """
        seen, present = set(firsts), set(firsts)
        for length in itertools.count():
            if not present.isdisjoint(lasts):
                return length
            present = {target for index in present for target in self.successors(index)} - seen
            seen |= present
            if not present:
                raise ValueError(f"no way from instruction {min(firsts)}")
        raise AssertionError

    def turn(self, loop: Loop) -> list[int]:
        """The instructions of one turn of a loop: of two sides of a branch, the longer one."""
        lengths: dict[int, int] = {loop.last: 1}
        following: dict[int, int] = {}
        for index in range(loop.last - 1, loop.first - 1, -1):
            ahead = [target for target in self.successors(index) if target > index and target in lengths]
            if ahead:
                following[index] = max(ahead, key=lengths.__getitem__)
                lengths[index] = 1 + lengths[following[index]]
        way = [loop.first]
        while way[-1] != loop.last:
            way.append(following[way[-1]])
        return way

    def classes(self, way: Iterable[int]) -> Counter[str]:
        """How many instructions of each class."""
        return Counter(self.kind(index) for index in way)
