"""The Triton kernels as machine code: compiled for GPUs that need not be there, and executed by the simulator."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import triton_compile
import triton_simulate
from cases import GROUP_SIZES, SPARSE
from pairwise import covering_array
from triton_cases import KINDS

pytestmark = [pytest.mark.triton, pytest.mark.slow]

BUDGET = json.loads((Path(__file__).parent / "triton_budget.json").read_text(encoding="utf-8"))
SHARED_BYTES = {
    "cuda:80": 163 << 10,
    "cuda:86": 99 << 10,
    "cuda:89": 99 << 10,
    "cuda:90": 227 << 10,
    "cuda:100": 227 << 10,
    "cuda:120": 99 << 10,
    "hip:gfx942": 64 << 10,
    "hip:gfx1100": 64 << 10,
}
"""What one program may have."""


@pytest.mark.parametrize("target", triton_compile.FACTORS["target"])
def test_what_kernels_take_is_within_the_budget(target: str) -> None:
    """No registers are spilled; registers, shared memory and instructions are what was recorded, or less.

    Another version of Triton than the recorded one generates other code: of it, the limits alone are asked.
    """
    cases = [case for case in triton_compile.all_cases() if case["target"] == target]
    assert len(cases) >= len(triton_compile.KINDS)
    for case, figures in zip(cases, triton_compile.run_cases(cases), strict=True):
        name = triton_compile.name_of(case)
        assert figures["spills"] == 0, name
        assert figures["shared_bytes"] <= SHARED_BYTES[target], name
        if metadata.version("triton") == BUDGET["triton"]:
            budget = BUDGET["cases"][name]
            assert figures.keys() == budget.keys()
            assert {key: value for key, value in figures.items() if value > budget[key]} == {}, name


DISASSEMBLY = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_0:
        /*0020*/                   HMMA.16816.F32 R4, R8, R2, R4 ;
        /*0030*/              @!P0 BRA `(.L_x_0) ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
.L_x_2:
        /*0060*/                   BRA `(.L_x_2);
"""


def test_the_loops_of_a_disassembly_are_found() -> None:
    assert triton_compile.innermost_loops(DISASSEMBLY) == [triton_compile.Loop(instructions=2, matrix_products=1)]


SIMULATED = {
    "phase": ("linear", "dequantize"),
    "kind": KINDS,
    "dtype": ("fp16", "bf16"),
    "tokens": (1, 7, 17, 40),
    "shape": ((1, 32), (17, 100), (72, 319), (40, 576)),
    "group_size": GROUP_SIZES,
    "sparse": SPARSE,
    "bias": (True, False),
}
TOLERANCE = {"fp16": 6e-4, "bf16": 4e-3}


def simulated_cases() -> list[dict[str, Any]]:
    """Any two values of SIMULATED meet in one of them."""
    return [case | {"seed": number} for number, case in enumerate(covering_array(SIMULATED))]


@pytest.mark.simulator
@pytest.mark.parametrize("multiprocessors", [1, 2])
def test_simulated_products_are_right(multiprocessors: int) -> None:
    """Every other case for each number of multiprocessors: with more of them, inputs are split more."""
    cases = simulated_cases()[multiprocessors - 1 :: 2]
    for case, result in zip(cases, triton_simulate.run_cases(cases, str(multiprocessors)), strict=True):
        assert result["error"] < TOLERANCE[case["dtype"]], case
        assert result["launches"] > 0


@pytest.mark.gpu
def test_products_on_a_gpu_are_right() -> None:
    cases = simulated_cases()
    for case, result in zip(cases, triton_simulate.run_cases(cases, "cuda"), strict=True):
        assert result["error"] < TOLERANCE[case["dtype"]], case
