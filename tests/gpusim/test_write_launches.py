"""What `make ptx` writes is enough to run the kernels elsewhere: here, at other addresses and without the launchers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated_gpu
import write_launches


@pytest.mark.gpusim
def test_launches_can_be_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_launches, "KINDS", [("uniform", 3), ("lut", 4)])
    monkeypatch.setattr(write_launches.trellis_cases, "KINDS", [("hyb", 3)])
    monkeypatch.setattr(write_launches, "TOKENS", (1, 9))
    folder = tmp_path / "launches"
    write_launches.main(folder)
    cases = json.loads((folder / "launches.json").read_text())
    shapes, weights = len(write_launches.SHAPES), 3
    assert len(cases) >= weights * shapes * 3  # both numbers of tokens, and dequantize
    simulator = simulated_gpu.extension().Simulator()
    for ptx in (folder / "ptx").glob("*.ptx"):
        simulator.load(ptx.read_text())
    for case in cases:
        replay(folder, case, simulator)


def replay(folder: Path, case: dict[str, Any], simulator: Any) -> None:
    """Runs a case and compares its outputs, byte for byte."""
    access = simulated_gpu.extension().Access
    expected = {tensor["name"]: np.load(folder / tensor["file"]) for tensor in case["tensors"]}
    memory: dict[str, np.ndarray] = {}
    simulator.clear_regions()
    for tensor in case["tensors"]:
        name, is_input = tensor["name"], tensor["role"] == "input"
        content = np.frombuffer(expected[name].tobytes(), np.uint8)
        assert content.nbytes == tensor["bytes"]
        memory[name] = aligned_copy(content if is_input else np.zeros_like(content))
        kind = access.READ_ONLY if is_input else access.UNINITIALISED
        simulator.add_region(memory[name].ctypes.data, content.nbytes, kind, name)
    assert case["launches"]
    for launch in case["launches"]:
        arguments = []
        for argument in launch["arguments"]:
            content = bytearray.fromhex(argument["hex"])
            for pointer in argument["pointers"]:
                address = memory[pointer["tensor"]].ctypes.data + pointer["byte"]
                content[pointer["offset"] : pointer["offset"] + 8] = address.to_bytes(8, "little")
            arguments.append(bytes(content))
        sizes = (launch["grid"], launch["block"], arguments, launch["dynamic_shared_bytes"])
        simulator.launch(launch["entry"], *sizes)
    for tensor in case["tensors"]:
        if tensor["role"] == "output":
            assert memory[tensor["name"]].tobytes() == expected[tensor["name"]].tobytes(), tensor["name"]


def aligned_copy(content: np.ndarray) -> np.ndarray:
    """At a multiple of 256 bytes, as a device's allocator gives it."""
    space = np.empty(content.nbytes + 256, np.uint8)
    begin = -space.ctypes.data % 256
    space[begin : begin + content.nbytes] = content
    return space[begin : begin + content.nbytes]
