"""The probes compile, and give rates that a computer can have."""

from __future__ import annotations

import probes
import pytest
from turns import mean


@pytest.fixture
def small_probes(monkeypatch: pytest.MonkeyPatch) -> probes.Probes:
    monkeypatch.setattr(probes, "LEAST_BUFFER_BYTES", 8 << 20)
    monkeypatch.setattr(probes, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(probes, "REPETITIONS", 1000)
    return probes.Probes(threads=1)


def test_rates(small_probes: probes.Probes) -> None:
    limits = small_probes.limits()
    assert 0.01 < limits.stream_gb_per_s <= limits.read_gb_per_s < 10_000
    assert set(limits.gflops) == set(probes.INSTRUCTIONS)
    assert all(0 <= rate < 1_000_000 for rate in limits.gflops.values())


def test_unknown_instruction_is_what_the_processor_lacks(small_probes: probes.Probes) -> None:
    assert small_probes.gflops("no such instruction") == 0


def test_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    probes._library.cache_clear()
    with pytest.raises(RuntimeError, match=r"no-such-compiler .* was not found"):
        probes.Probes(threads=1)


def test_mean_of_two_probes() -> None:
    before, after = probes.Limits(1.0, 2.0, {"fma": 10.0}), probes.Limits(3.0, 4.0, {"fma": 30.0})
    assert mean(before, after) == probes.Limits(2.0, 3.0, {"fma": 20.0})
