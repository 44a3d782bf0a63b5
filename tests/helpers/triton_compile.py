"""Compiles the linear kernel for GPUs that need not be there, and reads what it takes from the machine code.

Run as a program, outside of the interpreter, it reads cases as JSON from its input and writes a list of their figures.
With a file as its argument it writes all figures there, the budget that tests compare with; with the word estimates it
prints those of docs/backends.md.

    TRITON_INTERPRET=0 PYTHONPATH=tests/helpers python tests/helpers/triton_compile.py tests/backends/triton_budget.json
    TRITON_INTERPRET=0 PYTHONPATH=tests/helpers python tests/helpers/triton_compile.py estimates
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outside_interpreter
from pairwise import covering_array

from requant_kernels.backends.triton.tiles import TOKEN_BUCKETS, Kernel, tile_for

CUDA = ("cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100", "cuda:120")
HIP = ("hip:gfx942", "hip:gfx1100")

KINDS = (
    "uniform-2",
    "uniform-3",
    "uniform-4",
    "uniform-8",
    "lut-2-row",
    "lut-3-row",
    "lut-4-row",
    "lut-4-shared",
    "trellis-2-1mad",
    "trellis-3-3inst",
    "trellis-4-1mad",
    "trellis-2-hyb",
    "trellis-4-hyb",
)
"""format-bits-code"""

FACTORS = {
    "target": CUDA + HIP,
    "kind": KINDS,
    "dtype": ("fp16", "bf16"),
    "tokens": TOKEN_BUCKETS,
    "sparse": (True, False),
    "whole": (True, False),
}


def all_cases() -> list[dict[str, Any]]:
    """Cases in which any two values of FACTORS meet; the products of format trellis are never whole."""
    return [case | {"whole": case["whole"] and "trellis" not in case["kind"]} for case in covering_array(FACTORS)]


def name_of(case: Mapping[str, Any]) -> str:
    """`cuda:80 uniform-4 fp16 16 sparse whole`"""
    flags = [flag for flag in ("sparse", "whole") if case[flag]]
    return " ".join(map(str, (case["target"], case["kind"], case["dtype"], case["tokens"], *flags)))


GROUP_SIZE = 128
_POINTERS_FIRST = ("x", "rotated", "codes", "scale", "zero", "table", "sparse_index", "bias", "y")
_ARGUMENTS = (*_POINTERS_FIRST, "tokens", "slices", "out_features", "in_features", "dense_out", "dense_in")
_POINTERS = {"codes": "i32", "sparse_index": "i32", "scale": "bf16", "zero": "bf16"}
_NOT_SPECIALISED = ("tokens", "slices")


def compile_case(case: Mapping[str, Any]) -> Any:
    """The linear kernel as Triton compiled it. A case has target, kind, dtype ("fp16", "bf16"), tokens (a bucket),
    sparse and whole.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from requant_kernels.backends.triton import kernels

    format, bits, *code = case["kind"].split("-")
    tile = tile_for(case["target"], Kernel(format, int(bits), case["tokens"]))
    constants: dict[str, Any] = {
        "FORMAT": format,
        "BITS": int(bits),
        "GROUP": GROUP_SIZE if format == "uniform" or code == ["shared"] else 0,
        "CODE": code[0] if code else "",
        "BFLOAT_VALUES": False,
        "WHOLE": case["whole"],
        "ROWS": tile.rows,
        "INPUTS": tile.inputs,
        "TOKENS": case["tokens"],
        "ENTRIES": tile.entries,
        "PRECISION": "ieee",
    }
    absent = {"sparse_index": not case["sparse"], "bias": not case["whole"], "zero": format != "uniform"}
    absent |= {"table": format == "uniform" or code in (["1mad"], ["3inst"]), "scale": code == ["row"]}
    constants |= {name: None for name, missing in absent.items() if missing}
    pointers = dict.fromkeys(("x", "rotated", "bias"), case["dtype"]) | _POINTERS
    pointers |= {"y": case["dtype"] if case["whole"] else "fp32", "table": "fp32" if format == "trellis" else "bf16"}
    signature = {name: f"*{pointers[name]}" if name in pointers else "i32" for name in _ARGUMENTS}
    signature |= dict.fromkeys(constants, "constexpr")
    names = kernels.linear.arg_names
    aligned = [name for name in _ARGUMENTS if name not in constants and name not in _NOT_SPECIALISED]
    source = ASTSource(
        kernels.linear,
        signature={name: signature[name] for name in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    backend, architecture = case["target"].split(":")
    target = (
        GPUTarget("cuda", int(architecture), 32)
        if backend == "cuda"
        else GPUTarget("hip", architecture, 64 if architecture.startswith("gfx9") else 32)
    )
    return triton.compile(source, target=target, options={"num_warps": tile.warps, "num_stages": tile.stages})


@dataclass(frozen=True)
class Loop:
    """An innermost loop of the machine code."""

    instructions: int
    matrix_products: int


def cuda_figures(cubin: bytes) -> dict[str, Any]:
    """Registers per thread, accesses to spilled registers, and the innermost loops of the only kernel of a cubin."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = {"capture_output": True, "text": True, "check": True}
        usage = subprocess.run([tools / "cuobjdump", "--dump-resource-usage", file.name], **run).stdout
        code = subprocess.run([tools / "nvdisasm", "-c", file.name], **run).stdout
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "spills": len(re.findall(r"\s(?:LDL|STL)[.\s]", code)),
        "loops": innermost_loops(code),
    }


def innermost_loops(code: str) -> list[Loop]:
    """The loops of a disassembly that contain no other loop, in order. A loop ends with a jump back."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    spans = []
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)", line):
            target = re.search(r"\((\.L\w+)\)", found[2])
            if found[1].startswith("BRA") and target and labels.get(target[1], len(instructions)) < len(instructions):
                spans.append((labels[target[1]], len(instructions)))
            instructions.append(found[1])
    inner = [(a, b) for a, b in spans if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)]
    return [Loop(b - a + 1, sum("MMA" in name for name in instructions[a : b + 1])) for a, b in sorted(inner)]


def figures(case: Mapping[str, Any]) -> dict[str, Any]:
    """What the compiled kernel takes; of cubins also a thread's instructions per weight in the loop over the inputs."""
    compiled = compile_case(case)
    shared = {"shared_bytes": compiled.metadata.shared}
    if case["target"].startswith("hip"):
        assembly = compiled.asm["amdgcn"]
        counts = {
            name: int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1]) for name in ("vgpr_count", "vgpr_spill_count")
        }
        return {"registers": counts["vgpr_count"], "spills": counts["vgpr_spill_count"], **shared}
    found = cuda_figures(compiled.asm["cubin"])
    format, bits, *_ = case["kind"].split("-")
    tile = tile_for(case["target"], Kernel(format, int(bits), case["tokens"]))
    # The loop over the inputs comes after that over sparse entries, which are taken so many per 16 rows.
    *sparse, dense = [loop.instructions * 32 * tile.warps for loop in found.pop("loops") if loop.matrix_products]
    per_weight = {"instructions_per_weight": round(dense / (tile.rows * tile.inputs), 2)}
    per_entry = {"instructions_per_entry": round(sparse[-1] / (tile.rows // 16 * tile.entries))} if sparse else {}
    return {**found, **shared, **per_weight, **per_entry}


def run_cases(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`figures` of each."""
    return outside_interpreter.run_cases(__file__, cases)


def write_budget(file: Path) -> None:
    """Measures all cases."""
    import triton

    cases = {name_of(case): figures(case) for case in all_cases()}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(cases.items()))
    file.write_text(f'{{\n  "triton": "{triton.__version__}",\n  "cases": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")


def print_estimates() -> None:
    """Of every kind, fp16, with a sparse part, up to 16 tokens, on the CUDA targets; of one kind for more tokens."""
    cases = [(kind, target, 16) for kind in KINDS for target in CUDA]
    cases += [("uniform-4", target, tokens) for target in CUDA for tokens in TOKEN_BUCKETS[1:]]
    for kind, target, tokens in cases:
        case = {"target": target, "kind": kind, "dtype": "fp16", "tokens": tokens, "sparse": True, "whole": False}
        print(name_of(case), figures(case))


if __name__ == "__main__":
    if sys.argv[1:] == ["estimates"]:
        print_estimates()
    elif sys.argv[1:]:
        write_budget(Path(sys.argv[1]))
    else:
        json.dump([figures(case) for case in json.load(sys.stdin)], sys.stdout)
