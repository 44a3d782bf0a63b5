"""Routes from times, and the file that dispatch reads them from."""

import json
from pathlib import Path

import pytest
import torch
import tune

from requant_kernels import dispatch
from requant_kernels.dispatch import Backend


@pytest.mark.parametrize(
    ("fused_ms", "prefill_ms", "expected"),
    [
        ([1, 1, 2, 4], [2, 2, 2, 2], ((4, "fused"), (None, "prefill"))),
        ([1, 1, 1, 1], [2, 2, 2, 2], ((8, "fused"), (None, "prefill"))),
        ([3, 1, 1, 1], [2, 2, 2, 2], ((None, "prefill"),)),
    ],
)
def test_fused_as_long_as_it_is_not_slower(fused_ms, prefill_ms, expected):
    assert tune.phases(fused_ms, prefill_ms, (1, 2, 4, 8)) == expected


def test_routes_are_added_to_what_a_file_says(tmp_path: Path):
    file = tmp_path / "routes.json"
    tune.add_routes(file, "cuda", "sm_80", {"lut": ((None, "prefill"),)})
    tune.add_routes(file, "cuda", "sm_90", {"uniform": ((8, "fused"), (None, "prefill"))})
    assert json.loads(file.read_text())["cuda"] == {
        "sm_80": {"lut": [[None, "prefill"]]},
        "sm_90": {"uniform": [[8, "fused"], [None, "prefill"]]},
    }


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch):
    """Two-phase kernels of a backend `toy`, whose device is called sm_90 or sm_80 by its index."""
    toy = Backend(
        "toy",
        None,
        {("uniform", phase): lambda phase=phase: phase for phase in ("fused", "prefill")},
        architecture=lambda device: f"sm_{90 if device.index == 0 else 80}",
    )
    known = dict(dispatch.backends())
    monkeypatch.setattr(dispatch, "backends", lambda: known)
    dispatch.register(toy, {"uniform": ((64, "fused"), (None, "prefill"))})
    dispatch._kernel.cache_clear()
    dispatch._measured_routes.cache_clear()
    yield
    dispatch._routes().pop(("toy", "uniform"))
    dispatch._kernel.cache_clear()
    dispatch._measured_routes.cache_clear()


def phase_of(device: torch.device, tokens: int) -> object:
    with dispatch.use_backend("toy"):
        return dispatch.kernel_for("uniform", device, tokens)()


def test_measured_routes_hold_on_their_architecture(backends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "routes.json"
    tune.add_routes(file, "toy", "sm_90", {"uniform": ((8, "fused"), (None, "prefill"))})
    monkeypatch.setenv("REQUANT_ROUTES", str(file))
    measured, other = (torch.device("cuda", index) for index in (0, 1))
    assert [phase_of(measured, tokens) for tokens in (8, 9, 64)] == ["fused", "prefill", "prefill"]
    assert [phase_of(other, tokens) for tokens in (8, 64, 65)] == ["fused", "fused", "prefill"]


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        (((8, "fused"),), r"limits of toy for uniform must rise and end with None \(null\), got \[8\]"),
        (((8, "fused"), (4, "prefill"), (None, "prefill")), "must rise"),
        (((8, "slow"), (None, "prefill")), "backend toy has no phase 'slow' for uniform"),
    ],
)
def test_routes_that_make_no_sense_are_refused(backends, tmp_path: Path, monkeypatch, routes, message: str):
    file = tmp_path / "routes.json"
    tune.add_routes(file, "toy", "sm_90", {"uniform": routes})
    monkeypatch.setenv("REQUANT_ROUTES", str(file))
    with pytest.raises(ValueError, match=message):
        phase_of(torch.device("cuda", 0), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{bad", "Expecting property name"),
        ("[]", "no attribute"),
        ('{"nobody": {}}', "unknown backend 'nobody', expected one of cpu, "),
        ('{"toy": {"sm_90": {"uniform": 8}}}', "not iterable"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(backends, tmp_path: Path, monkeypatch, text: str | None, message: str):
    file = tmp_path / "routes.json"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("REQUANT_ROUTES", str(file))
    with pytest.raises(ValueError, match=f"^REQUANT_ROUTES: {file}: .*{message}"):
        phase_of(torch.device("cuda", 0), 1)


def test_routes_of_a_backend_that_is_not_live_are_left_alone(backends, tmp_path: Path, monkeypatch):
    dispatch.backends()["absent"] = Backend("absent", "no such hardware", {})
    file = tmp_path / "routes.json"
    tune.add_routes(file, "absent", "sm_90", {"uniform": ((None, "prefill"),)})
    monkeypatch.setenv("REQUANT_ROUTES", str(file))
    assert phase_of(torch.device("cuda", 0), 1) == "fused"


def test_a_name_is_registered_once(backends):
    with pytest.raises(ValueError, match="there is a backend 'toy' already"):
        dispatch.register(dispatch.backends()["toy"], {})
