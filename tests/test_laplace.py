"""Laplace's approximation where it is exact, and where it is not and says so."""

import math
import re
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.density import capture_density
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.modes import find_modes
from pyrolatent.infer.points import capture_points
from pyrolatent.infer.stages import Stages
from pyrolatent.seeds import generator
from tests import user_models as um

SEED = 3


def regression(x: Tensor, y: Tensor, prior: Tensor, noise: float) -> None:
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros_like(prior), prior).to_event(1))
    mean = pyro.deterministic("line", x @ slopes)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, noise), obs=y)


def regression_data(scales: list[float]) -> dict[str, Any]:
    """Correlated columns in units of `scales`."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, len(scales), generator=random, dtype=torch.float64)
    x = (x + x[:, :1]) * torch.tensor(scales, dtype=torch.float64)
    y = x @ (1 / torch.tensor(scales, dtype=torch.float64)) + torch.randn(40, generator=random).double()
    return {"x": x, "y": y, "prior": 10 / torch.tensor(scales, dtype=torch.float64), "noise": 0.7}


def exact_regression(x: Tensor, y: Tensor, prior: Tensor, noise: float) -> tuple[Tensor, Tensor, float]:
    """Posterior mean and covariance of the slopes, and the log evidence of y ~ N(0, x V x' + noise^2)."""
    covariance = torch.linalg.inv(x.mT @ x / noise**2 + torch.diag(prior**-2))
    marginal = (x * prior**2) @ x.mT + noise**2 * torch.eye(len(y), dtype=torch.float64)
    evidence = dist.MultivariateNormal(torch.zeros_like(y), marginal).log_prob(y)
    return covariance @ x.mT @ y / noise**2, covariance, float(evidence)


@pytest.mark.parametrize("scales", [[1.0, 1.0, 1.0], [1e-4, 1.0, 1e5, 30.0]], ids=["one unit", "many units"])
def test_exact_for_a_normal_posterior(scales: list[float]) -> None:
    data = regression_data(scales)
    mean, covariance, evidence = exact_regression(**data)
    fit = pyl.fit(regression, data, Laplace(), seed=SEED)
    sd = covariance.diagonal().sqrt()
    position, found = (fit.state[name].cpu() for name in ("position", "covariance"))
    torch.testing.assert_close((position - mean) / sd, torch.zeros_like(sd), rtol=0, atol=1e-8)
    torch.testing.assert_close(found / sd / sd[:, None], covariance / sd / sd[:, None], rtol=0, atol=1e-8)
    assert fit.info["log_evidence"] == pytest.approx(evidence, abs=1e-8)
    # Every draw has the same weight, which is the evidence.
    assert fit.weights is not None
    torch.testing.assert_close(fit.weights.raw, torch.full_like(fit.weights.raw, evidence), rtol=0, atol=1e-7)
    assert fit.weights.pareto_k == -math.inf
    assert fit.warnings == ()


def test_draws_are_of_that_normal() -> None:
    data = regression_data([1.0, 2.0])
    mean, covariance, _ = exact_regression(**data)
    fit = pyl.fit(regression, data, Laplace(num_draws=4_000), seed=SEED)
    slopes = fit.samples["slopes"]
    assert slopes.shape == (1, 4_000, 2)
    standard = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (slopes[0] - mean).mT, upper=False
    )
    # Standard errors: 1 / sqrt(n) of means and correlations, sqrt(2 / n) of variances; 4 of them.
    torch.testing.assert_close(standard.mean(1), torch.zeros(2).double(), rtol=0, atol=4 / 4_000**0.5)
    torch.testing.assert_close(
        torch.cov(standard), torch.eye(2).double(), rtol=0, atol=4 * (2 / 4_000) ** 0.5
    )
    torch.testing.assert_close(fit.samples["line"], slopes @ data["x"].mT)
    torch.testing.assert_close(
        fit.sample_stats["lp"][0], fit.weights.raw + normal_log_prob(standard, covariance), rtol=0, atol=1e-6
    )


def normal_log_prob(standard: Tensor, covariance: Tensor) -> Tensor:
    """Log density of the draws with these standardised coordinates `(D, S)`."""
    constant = len(standard) * math.log(2 * math.pi) + torch.logdet(covariance)
    return -0.5 * (standard.square().sum(0) + constant)


def test_a_fit_is_what_other_verbs_expect() -> None:
    fit = pyl.fit(regression, regression_data([1.0, 2.0]), Laplace(num_draws=200), seed=SEED)
    again = pyl.fit(regression, regression_data([1.0, 2.0]), Laplace(num_draws=200), seed=SEED)
    assert torch.equal(fit.samples["slopes"], again.samples["slopes"])
    assert fit.info["rung"] == "vmap"
    assert fit.info["num_modes"] == 1
    table = pyl.summary(fit)
    assert list(table.index[:2]) == ["slopes[0]", "slopes[1]"]
    assert pyl.predict(fit, num_draws=10)["y"].shape == (10, 40)
    assert pyl.to_inference_data(fit).posterior["slopes"].shape == (1, 200, 2)


def test_slower_rungs_find_the_same_mode() -> None:
    """A branch on a latent value runs eagerly; the posterior is that of a normal mean."""

    def branching(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        scale = 1.0 if mean > -100 else 2.0
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    with pytest.warns(pyl.FitWarning, match="ran at points one by one, which is slow"):
        fit = pyl.fit(branching, {"y": torch.full((3,), 2.0)}, Laplace(num_draws=100), seed=SEED)
    assert fit.rung == "eager"
    assert float(fit.state["position"]) == pytest.approx(6 / 4, abs=1e-8)
    assert float(fit.state["covariance"]) == pytest.approx(1 / 4, abs=1e-8)


def humps(places: list[float], shares: list[float], widths: list[float], dim: int) -> None:
    """A mixture of normals in each of `dim` coordinates, as a density on the whole line."""
    place = pyro.sample("place", dist.ImproperUniform(constraints.real_vector, (), (dim,)))
    parts = dist.Normal(torch.as_tensor(places), torch.as_tensor(widths))
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.as_tensor(shares)), parts)
    pyro.factor("mixture", mixture.log_prob(place).sum())


def test_two_modes_are_reported() -> None:
    data = {"places": [-5.0, 5.0], "shares": [0.8, 0.2], "widths": [1.0, 0.8], "dim": 1}
    with pytest.warns(
        pyl.FitWarning, match=r"Other modes \(1 found\) hold a comparable share .* site 'place'"
    ):
        fit = pyl.fit(humps, data, Laplace(), seed=SEED)
    # The humps' own curvatures: the best has evidence 0.8, though the other is as high.
    assert fit.info["num_modes"] == 2
    assert float(fit.state["position"]) == pytest.approx(-5, abs=1e-6)
    assert fit.info["log_evidence"] == pytest.approx(math.log(0.8), abs=1e-6)


def test_a_mode_without_a_share_is_not_worth_a_word() -> None:
    data = {"places": [-5.0, 5.0], "shares": [0.999, 0.001], "widths": [1.0, 1.0], "dim": 1}
    fit = pyl.fit(humps, data, Laplace(), seed=SEED)
    assert fit.info["num_modes"] == 2
    assert fit.warnings == ()


def test_flat_directions_are_named() -> None:
    def unidentified(y: Tensor) -> None:
        first = pyro.sample("first", dist.ImproperUniform(constraints.real, (), ()))
        pyro.sample("known", dist.Normal(0.0, 1.0))
        second = pyro.sample("second", dist.ImproperUniform(constraints.real, (), ()))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(first + second, 1.0), obs=y)

    words = r"does not fall along 1 of 3 directions from the mode, in sites \['first', 'second'\]"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = pyl.fit(unidentified, {"y": torch.ones(4)}, Laplace(), seed=SEED)
    assert any(re.search(words, str(message.message)) for message in caught)
    # Along the flat direction the scale is 1; along the other, the data's: first + second has variance 1/4.
    covariance = fit.state["covariance"].cpu()
    total = covariance[[0, 2]][:, [0, 2]].sum()
    apart = covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2]
    assert (float(total), float(apart)) == pytest.approx((0.25, 2.0), rel=1e-6)


def test_a_density_without_a_mode_is_reported() -> None:
    """The centred hierarchy rises without end into its neck."""

    def centred(y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("data", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pyl.fit(centred, um.eight_schools_data(), Laplace(), seed=SEED)
    messages = " ".join(str(message.message) for message in caught)
    assert "did not end at a mode" in messages
    assert "Use HMC()" in messages


def test_heavy_tails_are_judged_by_pareto_k() -> None:
    def heavy() -> None:
        pyro.sample("x", dist.Cauchy(torch.zeros(30), 1.0).to_event(1))

    with pytest.warns(pyl.FitWarning, match=r"Pareto k of the normal approximation is .* \(> 0.67\)"):
        fit = pyl.fit(heavy, {}, Laplace(), seed=SEED)
    assert fit.weights is not None
    assert fit.weights.pareto_k > 0.7


def test_impossible_draws_are_dropped() -> None:
    def truncated() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("limit", torch.where(x < 1.0, 0.0, -torch.inf))

    with pytest.warns(pyl.FitWarning, match=r"of 1000 draws were dropped, where the density is 0"):
        fit = pyl.fit(truncated, {}, Laplace(), seed=SEED)
    assert float(fit.samples["x"].max()) < 1.0
    # A binomial count with p = 0.841: sd 11.6, and 4 of them.
    assert fit.num_draws == pytest.approx(841, abs=47)


def test_it_starts_where_another_fit_ended() -> None:
    """From draws around the lesser of two modes it does not find the other."""

    both = {"places": [-9.0, 9.0], "shares": [0.8, 0.2], "widths": [1.0, 1.0], "dim": 1}
    right = both | {"shares": [0.0, 1.0]}
    start = pyl.fit(humps, right, Laplace(), seed=SEED)
    fit = pyl.fit(humps, both, Laplace(), start=start, seed=SEED)
    assert float(fit.state["position"]) == pytest.approx(9, abs=1e-6)


def test_more_modes_than_one_are_found_side_by_side() -> None:
    """Eight symmetric humps in three dimensions, all of them found."""

    data = {"places": [-4.0, 4.0], "shares": [0.5, 0.5], "widths": [1.0, 1.0], "dim": 3}
    density = capture_density(humps, data, seed=0)
    with density.context(), torch.no_grad():
        points = capture_points(density, False, 0)
        starts = 6 * torch.rand(64, 3, generator=generator(0, "starts"), dtype=torch.float64) - 3
        modes = find_modes(Stages(points), starts)
    corners = {tuple(mode.position.round().int().tolist()) for mode in modes}
    assert corners == {(x, y, z) for x in (-4, 4) for y in (-4, 4) for z in (-4, 4)}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(pyl.ArgumentError, match=r"num_draws is too small: got 99\. give at least 100"):
        Laplace(num_draws=99)


def test_too_many_dimensions_are_refused() -> None:
    def wide() -> None:
        pyro.sample("x", dist.Normal(torch.zeros(1_001), 1.0).to_event(1))

    with pytest.raises(pyl.ModelError, match="too many latent dimensions for a normal approximation: 1,001"):
        pyl.fit(wide, {}, Laplace(), seed=SEED)
