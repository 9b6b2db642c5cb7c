"""Log-domain bijections: torch's numbers where these are good, the exact ones where they are not."""

import math

import mpmath
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch.distributions import biject_to
from torch.distributions.transforms import (
    ComposeTransform,
    CorrCholeskyTransform,
    ExpTransform,
    IndependentTransform,
    StickBreakingTransform,
    identity_transform,
)
from torch.func import grad, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.errors import ArgumentError
from pyrolatent.transforms import LogCorrCholesky, LogStickBreaking, transform_to_constraint

EXACT = {"rtol": 1e-12, "atol": 1e-12}
PAIRS = [(LogCorrCholesky(), CorrCholeskyTransform(), 15), (LogStickBreaking(), StickBreakingTransform(), 6)]
BOTH = pytest.mark.parametrize(("ours", "torchs", "size"), PAIRS, ids=["corr_cholesky", "simplex"])


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value_and_log_jacobian(transform, x):
    y = transform(x)
    return y, transform.log_abs_det_jacobian(x, y)


@BOTH
@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_equals_torch_on_moderate_input(ours, torchs, size, batch):
    # at |x| ~ 0.5 torch loses a digit or two of 16 to 1 - cumsum(y^2)
    x = 0.5 * randn(*batch, size)
    for mine, theirs in zip(value_and_log_jacobian(ours, x), value_and_log_jacobian(torchs, x), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert ours(x).shape == ours.forward_shape(x.shape) == torchs.forward_shape(x.shape)
    assert ours.inverse_shape(ours(x).shape) == x.shape


@pytest.mark.parametrize("size", [1, 2, 3, 12, 30])
def test_correlation_factors_of_every_size_have_unit_rows(size):
    y = LogCorrCholesky()(2 * randn(4, size * (size - 1) // 2))
    torch.testing.assert_close(y.square().sum(-1), torch.ones(4, size, dtype=torch.float64), **EXACT)
    assert (y.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (y.triu(1) == 0).all()


@BOTH
def test_log_jacobian_is_that_of_the_map(ours, torchs, size):
    x = randn(size)
    free = torch.tril_indices(6, 6, -1).unbind() if size == 15 else (torch.arange(size),)
    jacobian = jacrev(lambda x: ours(x)[free])(x)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(ours.log_abs_det_jacobian(x, ours(x)), expected, **EXACT)


@BOTH
def test_inverse_returns_where_it_came_from(ours, torchs, size):
    # a cell carries x with relative error eps * cosh(x)^2 or so: 1e-16 * cosh(5)^2 < 1e-11 for |x| < 5
    x = 1.5 * randn(9, size)
    torch.testing.assert_close(ours.inv(ours(x)), x, rtol=1e-10, atol=1e-10)


EXTREME = [300.0, -300.0, 0.0, 1e-8, -40.0, 20.0, -0.3, 299.5, 1.0, -7.0]


def exact_correlation(x, size):
    """Factor and log-Jacobian by the textbook formula in 600 digits, enough for 1 - tanh(300)^2."""
    with mpmath.workdps(600):
        shares = iter([mpmath.tanh(t) for t in x])
        factor, log_jacobian = mpmath.zeros(size), mpmath.mpf(0)
        for i in range(size):
            rest = mpmath.mpf(1)
            for j in range(i):
                share = next(shares)
                factor[i, j] = share * mpmath.sqrt(rest)
                log_jacobian += mpmath.log(1 - share**2) + mpmath.log(rest) / 2
                rest *= 1 - share**2
            factor[i, i] = mpmath.sqrt(rest)
        cells = [[float(factor[i, j]) for j in range(size)] for i in range(size)]
        return torch.tensor(cells, dtype=torch.float64), float(log_jacobian)


def exact_simplex(x):
    """Point and log-Jacobian by the textbook formula in 600 digits."""
    with mpmath.workdps(600):
        point, log_jacobian, rest = [], mpmath.mpf(0), mpmath.mpf(1)
        for k, t in enumerate(x):
            share = 1 / (1 + mpmath.exp(mpmath.log(len(x) - k) - t))
            point.append(float(share * rest))
            log_jacobian += mpmath.log(share * (1 - share) * rest)
            rest *= 1 - share
        return torch.tensor([*point, float(rest)], dtype=torch.float64), float(log_jacobian)


REFERENCES = [
    (LogCorrCholesky(), CorrCholeskyTransform(), lambda x: exact_correlation(x, 5)),
    (LogStickBreaking(), StickBreakingTransform(), exact_simplex),
]


@pytest.mark.parametrize(("ours", "torchs", "exact"), REFERENCES, ids=["corr_cholesky", "simplex"])
def test_exact_at_extremes_where_torch_is_not(ours, torchs, exact):
    x = torch.tensor(EXTREME, dtype=torch.float64)
    value, log_jacobian = exact(EXTREME)
    theirs = float(torchs.log_abs_det_jacobian(x, torchs(x)))
    assert not abs(theirs - log_jacobian) < 100
    found, found_log_jacobian = value_and_log_jacobian(ours, x)
    # a logarithm of size 1000 has an absolute error of 1000 eps, and so exp() that relative error
    torch.testing.assert_close(found, value, rtol=1e-12, atol=0.0)
    assert math.isclose(found_log_jacobian, log_jacobian, rel_tol=1e-14)


def test_gradients_at_extremes_are_the_analytic_ones():
    x = torch.tensor(EXTREME, dtype=torch.float64)
    log_jacobian = grad(lambda x: LogCorrCholesky().log_abs_det_jacobian(x, x))(x)
    # entry (i, j) enters as (1 + i - j) log sqrt(1 - tanh(x)^2)
    weights = torch.tensor([2, 3, 2, 4, 3, 2, 5, 4, 3, 2])
    torch.testing.assert_close(log_jacobian, -weights * torch.tanh(x), **EXACT)
    for transform in (LogCorrCholesky(), LogStickBreaking()):
        assert jacrev(transform)(x).isfinite().all()


def test_second_derivative_is_analytic_also_at_zero():
    x = torch.tensor([0.0, 0.5, -2.0, 300.0, -300.0, 30.0], dtype=torch.float64)
    log_jacobian = jacrev(grad(lambda x: LogCorrCholesky().log_abs_det_jacobian(x, x)))(x)
    weights = torch.tensor([2, 3, 2, 4, 3, 2])
    torch.testing.assert_close(log_jacobian.diagonal(), -weights / torch.cosh(x) ** 2, **EXACT)


def test_simplex_gradient_at_extremes_is_the_analytic_one():
    x = torch.tensor(EXTREME, dtype=torch.float64)
    remaining = torch.arange(10, 0, -1, dtype=torch.float64)
    # log z + remaining log(1 - z) with z = sigmoid(x - log remaining)
    expected = 1 - (1 + remaining) * torch.sigmoid(x - remaining.log())
    found = grad(lambda x: LogStickBreaking().log_abs_det_jacobian(x, x))(x)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("t", [300.0, -300.0, 25.0, -1e-9, 0.0])
def test_inverse_of_one_correlation_holds_at_extremes(t):
    x = torch.tensor([t], dtype=torch.float64)
    torch.testing.assert_close(LogCorrCholesky().inv(LogCorrCholesky()(x)), x, rtol=1e-12, atol=1e-20)


@BOTH
def test_float32_keeps_its_precision(ours, torchs, size):
    x = 30 * randn(size)
    exact = value_and_log_jacobian(ours, x)
    for found, wanted in zip(value_and_log_jacobian(ours, x.float()), exact, strict=True):
        assert found.dtype == torch.float32
        # logarithms of size 100 carry 100 float32 eps into exp()
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-30)


@BOTH
def test_inverse_of_a_boundary_point_is_finite(ours, torchs, size):
    corner = torch.zeros(4, dtype=torch.float64)
    corner[0] = 1.0
    if size == 15:
        corner = corner.expand(4, 4) * torch.tensor([1, -1, 1, 1])[:, None]
    assert ours.inv(corner).isfinite().all()


def some_density(transform):
    def density(x):
        value, log_jacobian = value_and_log_jacobian(transform, x)
        return log_jacobian + (value * torch.arange(value.shape[-1])).sum()

    return density


@BOTH
def test_captured_gradients_are_torchs(ours, torchs, size):
    x = 0.5 * randn(5, size)
    graph = make_fx(vmap(grad(some_density(ours))))(x)
    expected = torch.stack([grad(some_density(torchs))(point) for point in x])
    # 1 - tanh(x)^2 loses a digit in torch, and its derivative another
    torch.testing.assert_close(graph(x), expected, rtol=1e-11, atol=1e-11)
    assert "cumprod" not in graph.code


def test_lookup_knows_ours_and_falls_back_to_torchs():
    assert transform_to_constraint(constraints.corr_cholesky) == LogCorrCholesky()
    assert transform_to_constraint(constraints.simplex) == LogStickBreaking()
    assert transform_to_constraint(constraints.real) is identity_transform
    assert transform_to_constraint(constraints.positive) == ExpTransform()
    assert transform_to_constraint(constraints.nonnegative) == ExpTransform()
    for bounded in (constraints.greater_than(1.5), constraints.greater_than(torch.tensor(0.0))):
        assert transform_to_constraint(bounded)(torch.zeros(())) == bounded.lower_bound + 1
    nested = constraints.independent(constraints.independent(constraints.corr_cholesky, 1), 2)
    found = transform_to_constraint(nested)
    assert isinstance(found, IndependentTransform)
    assert found.reinterpreted_batch_ndims == 2
    assert found.base_transform.base_transform == LogCorrCholesky()
    x = randn(2, 3, 4, 5, 6)
    assert found(x).shape == (2, 3, 4, 5, 4, 4)
    assert found.log_abs_det_jacobian(x, found(x)).shape == (2,)


def test_lookup_leaves_torchs_registry_alone():
    transform_to_constraint(constraints.corr_cholesky)
    transform_to_constraint(constraints.simplex)
    assert isinstance(biject_to(constraints.corr_cholesky), CorrCholeskyTransform)
    assert isinstance(biject_to(constraints.simplex), StickBreakingTransform)


def test_correlation_matrices_of_pyros_lkj():
    support = dist.LKJ(4, torch.tensor(2.0)).support
    found, theirs = transform_to_constraint(support), biject_to(support)
    assert isinstance(found, ComposeTransform)
    x = 0.5 * randn(3, 6)
    torch.testing.assert_close(found(x), theirs(x), **EXACT)
    torch.testing.assert_close(
        found.log_abs_det_jacobian(x, found(x)), theirs.log_abs_det_jacobian(x, theirs(x)), **EXACT
    )


def test_unknown_constraint_is_refused_by_torch():
    with pytest.raises(NotImplementedError, match="Cannot transform _Boolean"):
        transform_to_constraint(constraints.boolean)


def test_wrong_number_of_entries_is_refused():
    with pytest.raises(ArgumentError, match=r"D\(D-1\)/2 free entries: 4 is no such number. pass 3 or 6"):
        LogCorrCholesky()(torch.zeros(4))
