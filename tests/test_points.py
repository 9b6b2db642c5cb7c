"""Functions with their points last against the same functions mapped by torch; equal up to rounding."""

import pytest
import torch
from torch.func import grad, jacrev, vmap

from pyrolatent.points import points_last

CONSTANT = torch.linspace(0.5, 2.0, 3, dtype=torch.float64)


def plain(matrix, vector):
    """Of (3, 2) and (3,): a sum (3,) and a product (2,), neither linear."""
    return (matrix.square() * vector[:, None]).sum(1), CONSTANT @ (matrix * vector.exp()[:, None])


def with_points(matrix, vector):
    """The same of (3, 2, P) and (3, P)."""
    total = (matrix.square() * vector[:, None]).sum(1)
    return total, (CONSTANT[:, None, None] * matrix * vector.exp()[:, None]).sum(0)


def ours(matrix, vector):
    return points_last(with_points, matrix, vector)


def scalar(function):
    return lambda *inputs: sum((part.sin() ** 2).sum() for part in function(*inputs))


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("in_dims", [(0, 0), (2, 1), (None, 0), (1, None)])
def test_points_are_mapped_wherever_they_lie(in_dims):
    shapes = [list(shape) for shape in ((3, 2), (3,))]
    for shape, dim in zip(shapes, in_dims, strict=True):
        if dim is not None:
            shape.insert(dim, 4)
    inputs = [randn(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert_equal(vmap(ours, in_dims)(*inputs), vmap(plain, in_dims)(*inputs))
    first, second = (vmap(grad(scalar(f), argnums=(0, 1)), in_dims)(*inputs) for f in (ours, plain))
    assert_equal(first, second)


def test_maps_within_maps():
    matrix, vector = randn(5, 4, 3, 2), randn(4, 3, seed=1)
    found, expected = (vmap(vmap(f), in_dims=(0, None))(matrix, vector) for f in (ours, plain))
    assert_equal(found, expected)


def test_second_derivatives():
    inputs = randn(3, 2), randn(3, seed=1)
    for which in (0, 1):
        found, expected = (jacrev(jacrev(scalar(f), which), which)(*inputs) for f in (ours, plain))
        assert_equal(found, expected)


def test_autograd():
    matrix, vector = randn(3, 2).requires_grad_(), randn(3, seed=1).requires_grad_()
    found, expected = (
        torch.autograd.grad(scalar(f)(matrix, vector), (matrix, vector)) for f in (ours, plain)
    )
    assert_equal(found, expected)
