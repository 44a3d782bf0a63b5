"""Random operands for the simulator's own tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """The test's random numbers."""
    return np.random.default_rng(seed)
