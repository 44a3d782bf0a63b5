"""The seeds of the tests' random inputs."""

from __future__ import annotations

from pathlib import Path

import seeds


def test_the_same_sources_give_the_same_seed_and_any_change_another(tmp_path: Path) -> None:
    def write(text: str, name: str = "tests/a.py") -> int:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return seeds.of_sources(tmp_path)

    first = write("1")
    assert write("1") == first
    assert write("2") != first
    assert write("1") == first
    assert write("1", "docs/a.py") == first
    assert write("1", "csrc/b.h") != first


def test_every_test_of_a_run_has_a_seed_of_its_own() -> None:
    assert len({seeds.of_test(run, name) for run in (0, 1) for name in ("a", "b", "1 a")}) == 6
