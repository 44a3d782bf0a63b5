"""Bounds for Triton's interpreter, which would read and write whatever a pointer points to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest


class OutOfBounds(Exception):
    """A kernel touched memory that does not belong to its arguments."""


@contextmanager
def guarded() -> Iterator[None]:
    """Every load and store must stay within the tensors that the kernel was given; else OutOfBounds is raised (which
    the interpreter wraps into an error of its own).
    """
    from triton.runtime import interpreter

    ranges: list[tuple[int, int]] = []

    def check(pointers: Any, mask: Any, what: str) -> None:
        addresses = pointers.data.astype(np.int64)
        active = addresses[np.broadcast_to(mask.data.astype(bool), addresses.shape)]
        size = max(pointers.get_element_ty().primitive_bitwidth // 8, 1)
        inside = np.zeros(active.shape, bool)
        for begin, end in ranges:
            inside |= (active >= begin) & (active + size <= end)
        if not inside.all():
            raise OutOfBounds(f"{np.count_nonzero(~inside)} of {active.size} lanes {what} out of bounds")

    def guard(builder: type, name: str, what: str, mask: int) -> None:
        original = getattr(builder, name)

        def checked(self: Any, pointers: Any, *arguments: Any) -> Any:
            check(pointers, arguments[mask], what)
            return original(self, pointers, *arguments)

        patch.setattr(builder, name, checked)

    def registered(argument: Any) -> Any:
        if hasattr(argument, "data_ptr"):
            ranges.append((argument.data_ptr(), argument.data_ptr() + argument.nbytes))
        return convert(argument)

    class Executor(interpreter.GridExecutor):
        def __call__(self, *arguments: Any, **options: Any) -> None:
            ranges.clear()
            super().__call__(*arguments, **options)

    convert = interpreter._implicit_cvt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_implicit_cvt", registered)
        patch.setattr(interpreter, "GridExecutor", Executor)
        guard(interpreter.InterpreterBuilder, "create_masked_load", "read", 0)
        guard(interpreter.InterpreterBuilder, "create_masked_store", "write", 1)
        yield
