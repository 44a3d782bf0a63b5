"""The orthonormal transform that makes weights look Gaussian: H x along the last dimension, for any size.

    n = m * 2^k with m odd          H_n = Q_m (x) H_{2^k}          x is read as [m, 2^k], row-major

H_{2^k} is Sylvester's Hadamard matrix over 2^(k/2), applied as a fast Walsh-Hadamard transform along each row; Q_m is
the discrete Hartley transform, cos(2 pi j k / m) + sin(2 pi j k / m) over sqrt(m), a small dense product across rows.

Why Hartley: it exists for every m (Hadamard matrices of order 4 m, which others use, do not, or only by tables), has no
seed and depends on no library's random numbers, is symmetric, and its entries are at most sqrt(2) times those of a
Hadamard matrix, so that it spreads an outlier nearly as well. Both factors are symmetric, so H is its own inverse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def factors(size: int) -> tuple[int, int]:
    """(m, 2^k) with m odd and m * 2^k = size."""
    power = size & -size
    return size // power, power


def hartley(size: int) -> Tensor:
    """Q_m: orthonormal, symmetric, float64 [size, size]."""
    index = torch.arange(size)
    angle = (index.unsqueeze(1) * index % size).double() * (2 * math.pi / size)
    return (angle.cos() + angle.sin()) / math.sqrt(size)


def hadamard_transform(x: Tensor) -> Tensor:
    """H x along the last dimension (any size >= 1), in the floating dtype of x."""
    odd, power = factors(x.shape[-1])
    y = x.reshape(-1, odd, power)
    half = 1
    while half < power:
        pairs = y.view(-1, odd, power // (2 * half), 2, half)
        first, second = pairs.unbind(-2)
        y = torch.stack((first + second, first - second), dim=-2).view(-1, odd, power)
        half *= 2
    y = y / math.sqrt(power)
    if odd > 1:
        y = hartley(odd).to(x) @ y
    return y.reshape(x.shape)
