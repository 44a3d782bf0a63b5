"""Small kernels in PTX, for tests of single instructions: every thread loads its operands, runs a few lines, stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from simulated_gpu import SimulatedGpu, Uninitialised, read_only

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
WARP = 32

# Registers that a kernel body finds declared: %p predicates, %h 16 bits, %r 32 bits, %f floats, %d 64 bits.
REGISTERS = """
  .reg .pred %p<16>;
  .reg .b16 %h<32>;
  .reg .b32 %r<64>;
  .reg .f32 %f<32>;
  .reg .b64 %d<64>;
  .reg .f64 %fd<16>;
"""


def kernel(parameters: Sequence[str], body: str, name: str = "test", declarations: str = "") -> str:
    """A module with one kernel. The pointer or value of parameter NAME is in register %NAME.

    A parameter is "name" for a pointer, or "type name".
    """
    split = [parameter.split() if " " in parameter else ["u64", parameter] for parameter in parameters]
    listed = ", ".join(f".param .{kind} {name}_{label}" for kind, label in split)
    loads = "".join(
        f"  .reg .{kind} %{label};\n  ld.param.{kind} %{label}, [{name}_{label}];\n" for kind, label in split
    )
    return f"{HEADER}{declarations}\n.visible .entry {name}({listed})\n{{{REGISTERS}{loads}{body}\n  ret;\n}}\n"


# How an element of numpy's type is loaded and stored, and the prefix of the register that takes it.
ACCESS = {
    np.dtype("u1"): ("u8", "h"),
    np.dtype("i1"): ("s8", "h"),
    np.dtype("u2"): ("u16", "h"),
    np.dtype("i2"): ("s16", "h"),
    np.dtype("f2"): ("b16", "h"),
    np.dtype("u4"): ("u32", "r"),
    np.dtype("i4"): ("s32", "r"),
    np.dtype("f4"): ("f32", "f"),
    np.dtype("u8"): ("u64", "d"),
    np.dtype("i8"): ("s64", "d"),
    np.dtype("f8"): ("f64", "fd"),
}


def run_lanes(body: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs the lines once per element and returns the outputs.

    `{name}` in the body is the register of an input (an array of n elements) or an output (a dtype). n is a multiple of
    the 32 lanes of a warp; a block is one warp.
    """
    count = len(next(iter(inputs.values())))
    assert count % WARP == 0
    names: dict[str, str] = {}
    before, after = "", ""
    index = (
        "  mov.u32 %r60, %ctaid.x;\n  shl.b32 %r60, %r60, 5;\n  mov.u32 %r61, %tid.x;\n  add.u32 %r60, %r60, %r61;\n"
    )
    number = 20
    results = {}
    for name, kind in [*inputs.items(), *outputs.items()]:
        dtype = kind.dtype if isinstance(kind, np.ndarray) else np.dtype(kind)
        access, prefix = ACCESS[dtype]
        number += 1
        # Few double registers, and their numbers start low.
        names[name] = f"%{prefix}{number - 20 if prefix == 'fd' else number}"
        address = f"  mul.wide.u32 %d60, %r60, {dtype.itemsize};\n  add.u64 %d60, %d60, %{name};\n"
        if name in inputs:
            before += f"{address}  ld.global.{access} {names[name]}, [%d60];\n"
        else:
            after += f"{address}  st.global.{access.replace('s', 'u')} [%d60], {names[name]};\n"
            results[name] = np.empty(count, dtype)
    text = kernel([*names], index + before + body.format(**names) + "\n" + after)
    arguments = [read_only(array) for array in inputs.values()] + [Uninitialised(array) for array in results.values()]
    SimulatedGpu(text).launch("test", count // WARP, WARP, arguments)
    return results
