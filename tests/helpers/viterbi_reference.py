"""The Viterbi search written plainly, for one batch of sequences: the twin of the encoder in C++."""

from __future__ import annotations

import torch
from torch import Tensor

STATE_BITS = 16


def shortest_walk(
    targets: Tensor, values: Tensor, bits: int, allowed_first: Tensor | None = None, allowed_last: Tensor | None = None
) -> Tensor:
    """States int64 [batch, steps] of the walk with the least squared error. targets [batch, steps, V]; values
    [65536, V]; allowed_first and allowed_last: bool [batch, 65536].
    """
    step_bits = bits * values.shape[1]
    batch, steps, _ = targets.shape

    def error(step: int) -> Tensor:
        return (targets[:, step, None, :] - values).square().sum(dim=-1)

    def forbid(cost: Tensor, allowed: Tensor | None) -> Tensor:
        return cost if allowed is None else cost.masked_fill(~allowed, torch.inf)

    cost = forbid(error(0), allowed_first)
    pointers = []
    for step in range(1, steps):
        least, pointer = cost.view(batch, 2**step_bits, -1).min(dim=1)
        pointers.append(pointer)
        cost = error(step) + least.repeat_interleave(2**step_bits, dim=1)
    state = forbid(cost, allowed_last).argmin(dim=1, keepdim=True)
    walk = [state]
    for pointer in reversed(pointers):
        group = state >> step_bits
        state = group + (pointer.gather(1, group) << (STATE_BITS - step_bits))
        walk.append(state)
    return torch.cat(walk[::-1], dim=1)


def encode(targets: Tensor, values: Tensor, bits: int) -> Tensor:
    """Closed walks int64 [batch, 256 / V] for targets fp32 [batch, 256]: a free search over the sequence
    rotated by its half fixes the bits that the last and the first state share, a second one keeps to them.
    """
    step_bits = bits * values.shape[1]
    sequence = targets.view(targets.shape[0], -1, values.shape[1])
    half = sequence.shape[1] // 2
    shared = shortest_walk(sequence.roll(half, dims=1), values, bits)[:, half] >> step_bits
    states = torch.arange(2**STATE_BITS)
    allowed_first = states >> step_bits == shared.unsqueeze(1)
    allowed_last = states & (2 ** (STATE_BITS - step_bits) - 1) == shared.unsqueeze(1)
    return shortest_walk(sequence, values, bits, allowed_first, allowed_last)


def random_walks(shape: tuple[int, ...], bits: int, values_per_step: int) -> Tensor:
    """Closed walks int64 [*shape, 256 / V] of random bits, each state assembled from the ring one bit at a time."""
    step_bits = bits * values_per_step
    ring = torch.randint(0, 2, (*shape, 256 * bits))
    ends = torch.arange(step_bits, 256 * bits + 1, step_bits)
    states = torch.zeros((*shape, ends.numel()), dtype=torch.int64)
    for bit in range(STATE_BITS):
        states += ring[..., (ends - 1 - bit) % (256 * bits)] << bit
    return states
