"""Draws from priors of correlation matrices have the spread that is known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import prior_draws
from pyrolatent.lkj import corrected_draw, lkj_cholesky


@pytest.mark.parametrize("dim", [2, 3, 6])
@pytest.mark.parametrize("concentration", [0.5, 1.0, 4.0])
def test_every_correlation_has_its_marginal(dim: int, concentration: float) -> None:
    """(r + 1) / 2 ~ Beta(a, a) with a = concentration - 1 + dim / 2, so var r = 1 / (2 a + 1)."""
    factor = lkj_cholesky(dim, torch.full((40_000,), concentration, dtype=torch.float64))
    matrix = factor @ factor.mT
    torch.testing.assert_close(matrix.diagonal(dim1=-2, dim2=-1), torch.ones(40_000, dim).double())
    rows, columns = torch.tril_indices(dim, dim, -1)
    entries = matrix[:, rows, columns]
    variance = 1 / (2 * (concentration - 1 + dim / 2) + 1)
    # The fourth moment is 3 / ((2 a + 1) (2 a + 3)); five standard errors of a mean of squares.
    spread = (3 * variance / (1 / variance + 2) - variance**2) ** 0.5
    assert float((entries.mean(0)).abs().max()) < 5 * (variance / 40_000) ** 0.5
    assert float(((entries**2).mean(0) - variance).abs().max()) < 5 * spread / 200


def test_draws_from_a_prior_are_corrected() -> None:
    def model() -> None:
        pyro.sample("matrix", dist.LKJ(4, torch.tensor(2.0)))
        with pyro.plate("groups", 3):
            pyro.sample("factor", dist.LKJCholesky(4, torch.tensor(2.0)))

    draws, _ = prior_draws(model, {}, 2_000)
    assert draws["factor"].shape == (2_000, 3, 4, 4)
    assert draws["matrix"].shape == (2_000, 4, 4)
    # a = 3: variance 1 / 7 and fourth moment 3 / 63; five standard errors.  torch's own have 0.19.
    spread = (3 / 63 - 1 / 49) ** 0.5
    ours, entries = draws["factor"] @ draws["factor"].mT, draws["matrix"][..., 3, 2]
    assert float((ours[..., 3, 2] ** 2).mean()) == pytest.approx(1 / 7, abs=5 * spread / 6_000**0.5)
    assert float((entries**2).mean()) == pytest.approx(1 / 7, abs=5 * spread / 2_000**0.5)


@pytest.mark.parametrize("other", [dist.Normal(0.0, 1.0), dist.LogNormal(torch.zeros(2), 1.0).to_event(1)])
def test_other_distributions_draw_as_they_do(other: dist.Distribution) -> None:
    drawn: Tensor | None = corrected_draw(other)
    assert drawn is None
