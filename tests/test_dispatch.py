import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from requant_kernels import DenseSparseLinear, dispatch, use_backend

PROGRAM = """
import warnings, torch
from torch import nn
from requant_kernels import DenseSparseLinear, dispatch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    layer = DenseSparseLinear.from_linear(nn.Linear(64, 16))
    layer(torch.randn(1, 64)), layer(torch.randn(1, 64))
print(dispatch.backend_for("cpu").name, len(caught))
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_every_route_has_a_kernel_in_every_live_backend():
    for (name, format), phases in dispatch.ROUTES.items():
        backend = dispatch.backends()[name]
        if backend.unavailable_reason is None:
            assert all((format, phase) in backend.kernels for _, phase in (*phases, (None, "dequantize")))
        limits = [limit for limit, _ in phases]
        assert limits[-1] is None
        assert limits[:-1] == sorted(limits[:-1])


def test_use_backend_forces_and_restores():
    before = dispatch.backend_for("cpu").name
    with use_backend("reference"):
        assert dispatch.backend_for("cpu").name == "reference"
        with use_backend(before):
            assert dispatch.backend_for("cpu").name == before
        assert dispatch.backend_for("cpu").name == "reference"
    assert dispatch.backend_for("cpu").name == before


def test_backends_agree():
    layer = DenseSparseLinear.from_linear(nn.Linear(100, 50), bits=3)
    for tokens in (1, 7, 50):
        x = torch.randn(tokens, 100)
        with use_backend("reference"):
            expected = layer(x)
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_an_unknown_backend_is_refused_with_the_choices():
    message = r"use_backend: unknown backend 'cuda9', expected one of cpu, cuda, .*reference, triton"
    with pytest.raises(ValueError, match=message):
        use_backend("cuda9")


def test_a_backend_that_is_not_live_is_refused_with_its_reason(monkeypatch):
    absent = dispatch.Backend("absent", "no such hardware", {})
    monkeypatch.setattr(dispatch, "backends", lambda: {"absent": absent})
    with pytest.raises(RuntimeError, match="use_backend: backend 'absent' is not live: no such hardware"):
        use_backend("absent")


def test_the_environment_names_a_backend():
    assert run(PROGRAM, REQUANT_BACKEND="reference").stdout == "reference 0\n"
    failed = run(PROGRAM, REQUANT_BACKEND="fast")
    assert failed.returncode != 0
    assert "REQUANT_BACKEND: unknown backend 'fast', expected one of" in failed.stderr


def test_a_missing_extension_is_warned_about_once_and_never_silent():
    without = "import sys; sys.modules['requant_kernels._cpu'] = None\n" + PROGRAM
    finished = run(without)
    assert finished.stdout == "reference 1\n", finished.stderr


def test_live_backends_are_those_that_serve_a_device(monkeypatch):
    found = {name: dispatch.Backend(name, None, {}) for name in ("cpu", "cuda", "reference")}
    found["triton"] = dispatch.Backend("triton", "no such hardware", {})
    monkeypatch.setattr(dispatch, "backends", lambda: found)
    assert dispatch.live_backends("cpu") == ["cpu", "reference"]
    assert dispatch.live_backends("cuda") == ["cuda", "reference"]
    assert dispatch.live_backends("xpu") == ["reference"]
