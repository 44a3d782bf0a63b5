"""Random operands for the simulator's own tests."""

from __future__ import annotations

import random

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh random numbers; a failing test tells the seed."""
    seed = random.SystemRandom().getrandbits(32)
    request.node.add_report_section("setup", "seed", str(seed))
    return np.random.default_rng(seed)
