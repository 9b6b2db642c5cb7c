"""Pareto-smoothed weights against ArviZ, and against weights whose tail is known."""

import math
from collections.abc import Callable

import arviz as az
import numpy as np
import pytest
import torch

import pyrolatent as pyl
from pyrolatent.psis import pareto_fit, pareto_quantiles, psis, quantity_ess, reliable_k, weights_ess

Random = np.random.Generator

WEIGHTS: dict[str, Callable[[Random], np.ndarray]] = {
    "light": lambda rng: 0.3 * rng.normal(size=2_000),
    "heavy": lambda rng: 3 * rng.normal(size=2_000),
    "bounded": lambda rng: -rng.exponential(size=3_000),
    "large numbers": lambda rng: 1e4 + rng.normal(size=1_000),
    "ties": lambda rng: rng.normal(size=1_000).round(1),
    "each twice": lambda rng: np.repeat(rng.normal(size=200), 2),
    "few": lambda rng: rng.normal(size=30),
    "too few": lambda rng: rng.normal(size=12),
    "two": lambda rng: np.array([0.0, -1.0]),
    "one of all": lambda rng: np.r_[50.0, rng.normal(size=999)],
    "far apart": lambda rng: 400 * rng.normal(size=1_000),
    "some zero": lambda rng: np.r_[rng.normal(size=500), np.full(100, -np.inf)],
    "long": lambda rng: rng.gumbel(size=20_000),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_equal_to_arviz(name: str) -> None:
    raw = WEIGHTS[name](np.random.default_rng(0))
    expected, expected_k = az.psislw(raw.copy())
    smoothed, k = psis(torch.from_numpy(raw))
    assert k == pytest.approx(float(expected_k), rel=1e-10)
    # Tied weights share their smoothed values in no particular order.
    torch.testing.assert_close(
        smoothed.sort().values, torch.from_numpy(np.sort(expected)), rtol=0, atol=1e-10
    )
    if len(np.unique(raw[np.isfinite(raw)])) == np.isfinite(raw).sum():
        torch.testing.assert_close(smoothed, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_equal_weights_have_no_tail() -> None:
    for weights in (torch.zeros(1_000), 1e-9 * torch.randn(1_000, dtype=torch.float64) - 3e4):
        smoothed, k = psis(weights)
        assert k == -math.inf
        torch.testing.assert_close(smoothed.exp(), torch.full_like(smoothed, 1e-3), rtol=1e-5, atol=0)


def test_a_uniform_piece_of_a_uniform_proposal_has_no_tail() -> None:
    weights = torch.where(torch.arange(1_000) % 3 == 0, 0.0, -torch.inf)
    smoothed, k = psis(weights)
    assert k == -math.inf
    assert weights_ess(smoothed) == pytest.approx(334)


@pytest.mark.parametrize("sd", [0.3, 0.6, 0.95])
def test_a_narrow_normal_has_the_shape_that_its_width_implies(sd: float) -> None:
    """p = N(0, 1), q = N(0, sd): P(w > t) falls as t^(-1 / (1 - sd^2)), but for a logarithm: k = 1 - sd^2."""
    x = sd * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, k = psis(-0.5 * x**2 + 0.5 * (x / sd) ** 2)
    # 3,000 draws of the tail know k to (1 + k) / sqrt(3,000) < 0.04; the logarithm is worth a little more.
    assert k == pytest.approx(1 - sd**2, abs=0.15)


def test_the_fit_recovers_shape_and_scale() -> None:
    number = 4_000
    middle = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    for shape in (-0.3, 0.0, 0.4, 0.9):
        found, scale = pareto_fit(pareto_quantiles(middle, shape, 2.0))
        # The prior is worth 10 draws of shape 1/2; of exact quantiles the estimate errs by O(1 / number).
        expected = (number * shape + 10 * 0.5) / (number + 10)
        assert (found, scale) == pytest.approx((expected, 2.0), abs=0.01)


def test_how_large_k_may_be() -> None:
    assert [reliable_k(number) for number in (10, 100, 10_000, 10**6)] == pytest.approx([0, 0.5, 0.7, 0.7])


def test_effective_draws_of_weights() -> None:
    assert weights_ess(torch.full((50,), -math.log(50))) == pytest.approx(50)
    assert weights_ess(torch.tensor([0.0, -math.inf])) == pytest.approx(1)
    halves = torch.tensor([0.5, 0.25, 0.25]).log()
    assert weights_ess(halves) == pytest.approx(1 / (0.25 + 0.0625 + 0.0625))


def test_effective_draws_of_a_quantity_by_the_plain_formula() -> None:
    noise = torch.Generator().manual_seed(0)
    log_weights = torch.randn(200, generator=noise, dtype=torch.float64).log_softmax(0)
    values = torch.randn(200, 2, 3, generator=noise, dtype=torch.float64)
    values[:, 1, 2] = 4.0
    found = quantity_ess(log_weights, values)
    weights = log_weights.exp().tolist()
    for i, j in [(0, 0), (0, 2), (1, 1)]:
        f = values[:, i, j].tolist()
        mean = sum(w * x for w, x in zip(weights, f, strict=True))
        variance = sum(w * (x - mean) ** 2 for w, x in zip(weights, f, strict=True))
        error = sum((w * (x - mean)) ** 2 for w, x in zip(weights, f, strict=True))
        assert float(found[i, j]) == pytest.approx(variance / error)
    assert found.shape == (2, 3)
    assert math.isnan(found[1, 2])


def test_effective_draws_with_equal_weights_are_all() -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert float(quantity_ess(torch.full((100,), -math.log(100)), values)) == pytest.approx(100)


def test_a_draw_of_weight_zero_does_not_count() -> None:
    log_weights = torch.tensor([-math.inf, math.log(0.5), math.log(0.5)], dtype=torch.float64)
    assert float(quantity_ess(log_weights, torch.tensor([math.nan, 1.0, 2.0]))) == pytest.approx(2)


@pytest.mark.parametrize("weights", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf]])
def test_weights_that_say_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(pyl.ArgumentError, match=r"not finite: \d NaN, \d infinite, \d zero of 2"):
        psis(torch.tensor(weights))


def test_a_single_weight_is_refused() -> None:
    with pytest.raises(pyl.ArgumentError, match="one vector of two or more: shape"):
        psis(torch.zeros(1))
