"""What is asked of the distribution of a single cell: a value inside, quantiles, moments.

torch gives quantiles (`icdf`) to continuous distributions only, and the moments of a `Categorical` as
nan; of a distribution with finitely many values both follow from its probabilities.
"""

from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import MixtureSameFamilyConstraint

from pyrolatent.transforms import transform_to_constraint

FROM_BELOW = (constraints.integer_interval, type(constraints.nonnegative_integer))


def support_of(column: Distribution) -> Any:
    """Return the constraint that the cells of a column meet, whose type torch leaves open."""
    return column.support


def value_inside(column: Distribution) -> Tensor:
    """Return a value of the support, `()` or as wide as its bounds, with a finite density."""
    support = support_of(column)
    if isinstance(support, MixtureSameFamilyConstraint):
        support = support.base_constraint
    if isinstance(support, FROM_BELOW):
        return torch.as_tensor(support.lower_bound)
    if support.is_discrete:
        return torch.zeros(())
    return transform_to_constraint(support)(torch.zeros(())).detach()


def quantile(column: Distribution, share: Tensor) -> Tensor:
    """Return the smallest values `(..., N)` whose cumulative probabilities reach `share (..., N)`.

    Raises:
        NotImplementedError: The distribution has no quantile function.
    """
    if not column.has_enumerate_support:
        return column.icdf(share)
    values = column.enumerate_support(expand=False)
    rank = (column.log_prob(values).exp().cumsum(0)[:-1] < share).sum(0, keepdim=True)
    return values.expand(len(values), *rank.shape[1:]).take_along_dim(rank, 0)[0]


def has_quantiles(column: Distribution) -> bool:
    """True for a distribution of which a uniform number makes a draw."""
    try:
        quantile(column, torch.full((), 0.5))
    except NotImplementedError:
        return False
    return True


def cell_moments(column: Distribution) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `batch_shape` of a cell."""
    if not column.has_enumerate_support:
        return column.mean, column.stddev
    values = column.enumerate_support(expand=False)
    weights = column.log_prob(values).exp()
    mean = (weights * values).sum(0)
    return mean, (weights * (values - mean).square()).sum(0).sqrt()


def typical(column: Distribution) -> Tensor:
    """Return the mean `batch_shape` of a cell, or its most probable value where these can be listed."""
    if not column.has_enumerate_support:
        return column.mean
    values = column.enumerate_support(expand=False)
    best = column.log_prob(values).argmax(0, keepdim=True)
    return values.expand(len(values), *best.shape[1:]).take_along_dim(best, 0)[0]
