"""Columns that share a distribution against the same columns each with its own."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.errors import ArgumentError, DataError

ROWS, EXACT = 6, {"rtol": 1e-6, "atol": 1e-6}
ORDER = ("n1", "c1", "n2", "b1", "c2", "b2", "p")


@pytest.fixture
def parameters() -> Tensor:
    return torch.randn(ROWS, len(ORDER), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> Tensor:
    return torch.rand(ROWS, len(ORDER), generator=torch.Generator().manual_seed(1)) < 0.7


def labels(logits: Tensor) -> dist.Categorical:
    return dist.Categorical(logits=logits[..., None] * torch.tensor([0.0, 1.0, -1.0]))


def pairwise(t: Tensor, mask: Tensor) -> ColumnwiseDistribution:
    """Three blocks of two columns that are not neighbours, and a column by itself."""
    columns = {
        ("n1", "n2"): dist.Normal(t[..., [0, 2]], torch.tensor([0.5, 2.0])),
        "p": dist.Poisson(t[..., 6].exp()),
        ("c1", "c2"): labels(t[..., [1, 4]]),
        ("b1", "b2"): dist.Bernoulli(logits=t[..., [3, 5]]),
    }
    return ColumnwiseDistribution(columns, mask, ORDER, validate_args=False)


def single(t: Tensor, mask: Tensor) -> ColumnwiseDistribution:
    """The same, a distribution for each column."""
    columns = {
        "n1": dist.Normal(t[..., 0], 0.5),
        "c1": labels(t[..., 1]),
        "n2": dist.Normal(t[..., 2], 2.0),
        "b1": dist.Bernoulli(logits=t[..., 3]),
        "c2": labels(t[..., 4]),
        "b2": dist.Bernoulli(logits=t[..., 5]),
        "p": dist.Poisson(t[..., 6].exp()),
    }
    return ColumnwiseDistribution(columns, mask, validate_args=False)


def test_densities_and_moments_agree(parameters: Tensor, mask: Tensor) -> None:
    several, each = pairwise(parameters, mask), single(parameters, mask)
    value = torch.where(mask, each.sample(), 0.0)
    torch.testing.assert_close(several.log_prob_cells(value), each.log_prob_cells(value), **EXACT)
    torch.testing.assert_close(several.log_prob(value), each.log_prob(value), **EXACT)
    for found, expected in zip(several.conditional(value), each.conditional(value), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert several.support.check(value).all()


def test_particles_stand_to_the_left_of_the_rows(mask: Tensor) -> None:
    t = torch.randn(4, ROWS, len(ORDER), generator=torch.Generator().manual_seed(2))
    several, each = pairwise(t, mask), single(t, mask)
    assert several.batch_shape == (4, ROWS)
    value = torch.where(mask, single(t[0], mask).sample(), 0.0)
    torch.testing.assert_close(several.log_prob(value), each.log_prob(value), **EXACT)


def test_completed_cells_are_quantiles_of_the_same_noise(parameters: Tensor, mask: Tensor) -> None:
    keep = [0, 1, 2, 3, 4, 5]  # a Poisson cell has no quantile
    noise = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(3))
    several = {key: cells for key, cells in pairwise(parameters, mask).columns.items() if key != "p"}
    each = {key: cells for key, cells in single(parameters, mask).columns.items() if key != "p"}
    value = torch.zeros(ROWS, 6)
    blocks = ColumnwiseDistribution(several, mask[:, keep], ORDER[:6], validate_args=False)
    assert blocks.draws_from_noise
    expected = ColumnwiseDistribution(each, mask[:, keep], validate_args=False).complete(value, noise)
    torch.testing.assert_close(blocks.complete(value, noise), expected, **EXACT)


def test_draws_have_the_means_of_their_columns(parameters: Tensor, mask: Tensor) -> None:
    torch.manual_seed(0)
    rows = pairwise(parameters, torch.zeros_like(mask))
    draws = rows.sample((4_000,))
    mean, sd = rows.conditional(torch.zeros(ROWS, len(ORDER)))
    assert float(((draws.mean(0) - mean).abs() / (sd / 4_000**0.5)).max()) < 4.5  # of 42 cells


def test_a_value_outside_of_the_support_is_named(parameters: Tensor, mask: Tensor) -> None:
    value = torch.zeros(ROWS, len(ORDER))
    value[4, 4] = 7.0
    seen = torch.ones_like(mask)
    with pytest.raises(DataError, match=r"column 'c2', row 4: .*: 7 under Categorical, 1 of 12 values"):
        pairwise(parameters, seen).check_cells(value)


@pytest.mark.parametrize(
    ("columns", "order", "message"),
    [
        (
            {("a", "b"): dist.Normal(torch.zeros(4, 3), 1.0)},
            None,
            "'a', 'b'.*Normal: .*a cell for each column",
        ),
        ({("a", "b"): dist.Normal(torch.zeros(5, 2), 1.0)}, None, "a cell for each row"),
        ({("a", "b"): dist.Normal(torch.zeros(4, 2), 1.0)}, ("a", "c"), "order does not have the columns"),
    ],
)
def test_blocks_that_do_not_fit(columns: dict, order: tuple | None, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ColumnwiseDistribution(columns, torch.ones(4, 2, dtype=torch.bool), order)
