"""The bound that benchmarks/closed_walks.py prints is that of a plain search."""

import closed_walks
import torch
from viterbi_reference import shortest_walk

from requant_kernels.formats import trellis


def test_no_walk_is_closer() -> None:
    values = trellis.code_values("1mad")
    targets = torch.randn(1, 256)
    walk = shortest_walk(targets.unsqueeze(-1), values, 3)
    error = (values[walk].flatten(1) - targets).square().sum(dim=1)
    torch.testing.assert_close(closed_walks.least_error(targets, values.flatten(), 3), error, rtol=1e-5, atol=0)
