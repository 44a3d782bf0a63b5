"""The transform is orthonormal and symmetric for every size, and is what its definition says."""

import pytest
import torch

from requant_kernels.formats.hadamard import factors, hadamard_transform, hartley


def matrix(size: int) -> torch.Tensor:
    return hadamard_transform(torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 31, 45, 96, 128, 257, 576, 960, 1536])
def test_orthonormal_and_symmetric(size):
    h = matrix(size)
    assert torch.allclose(h @ h.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(h, h.T, atol=1e-12)


def test_it_is_the_kronecker_product_of_its_factors():
    sylvester = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    expected = torch.kron(hartley(5), torch.kron(sylvester, torch.kron(sylvester, sylvester)))
    assert torch.allclose(matrix(40), expected, atol=1e-14)


@pytest.mark.parametrize("size", [8192, 11008, 14336, 8191])
def test_large_sizes_keep_the_norm_and_invert_themselves(size):
    x = torch.randn(2, 3, size)
    y = hadamard_transform(x)
    assert y.shape == x.shape
    assert torch.allclose(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
    assert torch.allclose(hadamard_transform(y), x, atol=1e-4)


@pytest.mark.parametrize("size", [576, 1536, 4096, 4864])
def test_an_outlier_is_spread_flatly(size):
    """No entry is larger than sqrt(2) times that of a perfectly flat matrix."""
    unit = torch.zeros(8, size)
    unit[torch.arange(8), torch.randint(0, size, (8,))] = 1
    assert float(hadamard_transform(unit).abs().max()) <= (2 / size) ** 0.5 * 1.0001


@pytest.mark.parametrize(("size", "expected"), [(1, (1, 1)), (576, (9, 64)), (8192, (1, 8192)), (11008, (43, 256))])
def test_factors(size, expected):
    assert factors(size) == expected
