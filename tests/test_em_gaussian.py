"""EM where rows have normal latents: against marginal normals by hand, scikit-learn and numeric Hessians."""

import math
import warnings
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.differentiate import hessian
from sklearn.decomposition import FactorAnalysis
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.context import model_context
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.fit import as_input
from pyrolatent.infer.em import EM
from pyrolatent.infer.em_gaussian import RowLatents, rows_of
from pyrolatent.infer.em_setup import steps_of
from pyrolatent.infer.em_steps import Steps
from pyrolatent.pair import as_pair
from pyrolatent.result import Problem
from tests import em_models as models

CPU = torch.device("cpu")
FLOAT = torch.float64


def problem_of(model: Any, data: dict[str, Any]) -> Problem:
    tensors = {name: as_input(value, FLOAT, CPU) for name, value in data.items()}
    return Problem(as_pair(model), tensors, None, 0, FLOAT, CPU, False, False)


def read(model: Any, data: dict[str, Any], *, penalised: bool = False) -> tuple[Steps, RowLatents]:
    problem = problem_of(model, data)
    with torch.no_grad():
        steps, sites = steps_of(problem, penalised)
    return steps, rows_of(problem, sites, steps.latents.density.sites, penalised)


def quiet(model: Any, data: Any, method: EM | None = None, **settings: Any) -> pyl.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return pyl.fit(model, data, method or EM(num_starts=2), **{"seed": 0, "progress": False, **settings})


def factors(x: Tensor, mask: Tensor, number: int = 1) -> None:
    """Factor analysis of columns some of whose cells are missing."""
    columns = x.shape[1]
    loadings = pyro.sample("loadings", dist.Normal(torch.zeros(columns, number), 5.0).to_event(2))
    noise = pyro.sample("noise", dist.HalfNormal(5.0 * torch.ones(columns)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(number), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ loadings.mT, noise).mask(mask).to_event(1), obs=x)


def factors_data(rows: int = 80, missing: float = 0.25) -> dict[str, Tensor]:
    random = models.generator()
    x = torch.randn(rows, 1, generator=random, dtype=FLOAT) * torch.tensor([1.0, -0.8, 0.6, 2.0])
    x = x + 0.5 * torch.randn(rows, 4, generator=random, dtype=FLOAT)
    mask = torch.rand(rows, 4, generator=random) >= missing
    return {"x": torch.where(mask, x, 0.0), "mask": mask}


def marginal(x: Tensor, mask: Tensor, loadings: Tensor, noise: Tensor) -> Tensor:
    """The normal log-likelihood `()` of the observed cells, row by row."""
    covariance = loadings @ loadings.mT + noise.square().diag()
    rows = []
    for row, seen in zip(x, mask, strict=True):
        some = dist.MultivariateNormal(torch.zeros(int(seen.sum()), dtype=FLOAT), covariance[seen][:, seen])
        rows.append(some.log_prob(row[seen]))
    return torch.stack(rows).sum()


# The likelihood


def test_expected_prices_are_those_of_the_article_with_its_sums_right() -> None:
    x = torch.tensor([5.0, 6.0, 7.0], dtype=FLOAT)
    steps, rows = read(models.prices, models.prices_data())
    before = torch.tensor([4.0, 1.0, 0.0, 1.0], dtype=FLOAT)
    with model_context(FLOAT, CPU), torch.no_grad():
        position = steps.latents.position(before[None])
        mean, factor = rows.posterior(position[0])
        total = steps.log_likelihood(position)[0]
    expected, variance = mean[:, 0], factor[:, 0, 0] ** -2
    torch.testing.assert_close(expected, torch.tensor([0.5, 1.0, 1.5], dtype=FLOAT))
    torch.testing.assert_close(variance, torch.full((3,), 0.5, dtype=FLOAT))
    # x ~ N(mu + nu, sigma^2 + tau^2)
    exact = stats.norm(4.0, math.sqrt(2.0)).logpdf([5.0, 6.0, 7.0]).sum()
    assert float(total) == pytest.approx(exact, abs=1e-9)
    # the M-step: means of x - z and of z, and their mean squares around these
    mu, nu = (x - expected).mean(), expected.mean()
    sigma = ((x - expected - mu).square() + variance).mean().sqrt()
    tau = ((expected - nu).square() + variance).mean().sqrt()
    after = torch.stack([mu, sigma, nu, tau])
    torch.testing.assert_close(
        after, torch.tensor([5.0, math.sqrt(2 / 3), 1.0, math.sqrt(2 / 3)], dtype=FLOAT)
    )
    with model_context(FLOAT, CPU), torch.no_grad():
        better = steps.log_likelihood(steps.latents.position(after[None]))[0]
        climbed = steps.log_likelihood(steps.latents.position(steps.improved(before[None])[1]))[0]
    assert float(climbed) >= float(better) > float(total)  # which the climb need not lag behind


def test_only_the_sums_of_prices_are_known() -> None:
    found = quiet(models.prices, models.prices_data())
    mu, log_sigma, nu, log_tau = found.state["position"]
    assert float(mu + nu) == pytest.approx(6.0, abs=1e-4)
    assert float((2 * log_sigma).exp() + (2 * log_tau).exp()) == pytest.approx(2 / 3, abs=1e-3)
    assert found.info["log_likelihood"] == pytest.approx(
        3 * (-0.5 * math.log(2 * math.pi * 2 / 3) - 0.5), abs=1e-6
    )
    told = " ".join(found.warnings)
    assert "only what is left when they are combined is known" in told
    assert "'mu'" in told and "'nu'" in told
    assert "'sigma'" in told or "'tau'" in told  # the sum of their squares is a curve, flat or bent


@pytest.mark.parametrize("number", [1, 2, 9])  # systems of up to 8 latents are unrolled
def test_the_likelihood_is_that_of_the_observed_cells(number: int) -> None:
    data = factors_data(12)
    steps, _ = read(lambda x, mask: factors(x, mask, number), data)
    assert steps.how_it_ran["rung"] == "vmap"
    random = models.generator(1)
    position = torch.rand(2, steps.latents.density.dim, generator=random, dtype=FLOAT)
    total, gradient = steps.log_likelihood(position)
    for point, value, slope in zip(position, total, gradient, strict=True):
        free = point.clone().requires_grad_()
        loadings, log_noise = free.split([4 * number, 4])
        exact = marginal(**data, loadings=loadings.view(4, number), noise=log_noise.exp())
        torch.testing.assert_close(value, exact.detach(), rtol=0, atol=1e-9)
        torch.testing.assert_close(slope, torch.autograd.grad(exact, free)[0], rtol=1e-9, atol=1e-9)


def test_priors_count_if_they_should() -> None:
    data = factors_data(12)
    position = torch.full((1, 8), 0.3, dtype=FLOAT)
    plain, penalised = (
        read(factors, data, penalised=p)[0].log_likelihood(position)[0] for p in (False, True)
    )
    noise = position[0, 4:].exp()
    prior = dist.Normal(0.0, 5.0).log_prob(position[0, :4]).sum() + dist.HalfNormal(5.0).log_prob(noise).sum()
    torch.testing.assert_close(penalised - plain, prior[None])


def test_code_that_writes_in_place_is_captured_too() -> None:
    def written(x: Tensor, mask: Tensor) -> None:
        loadings = pyro.sample("loadings", dist.Normal(torch.zeros(4), 5.0).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(5.0 * torch.ones(4)).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = torch.zeros(len(x), 4)
            for column in range(4):
                mean[:, column] = z * loadings[column]
            pyro.sample("x", dist.Normal(mean, noise).mask(mask).to_event(1), obs=x)

    data = factors_data(12)
    position = torch.linspace(-1, 1, 16, dtype=FLOAT).view(2, 8)
    steps, _ = read(written, data)
    assert steps.how_it_ran["rung"] == "shim"
    for found, wanted in zip(
        steps.log_likelihood(position), read(factors, data)[0].log_likelihood(position), strict=True
    ):
        torch.testing.assert_close(found, wanted)


# Fits


def test_factor_analysis_is_that_of_scikit_learn() -> None:
    data = factors_data(missing=0.0)
    x = data["x"] - data["x"].mean(0)
    found = quiet(factors, {**data, "x": x})
    peer = FactorAnalysis(1, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(x.numpy())
    assert found.info["log_likelihood"] == pytest.approx(peer.score(x.numpy()) * len(x), abs=1e-5)


def test_standard_errors_are_those_of_the_marginal_likelihood() -> None:
    data = factors_data()
    found = quiet(factors, data)
    x, mask = data["x"].numpy(), data["mask"].numpy()
    patterns = [(seen, (mask == seen).all(1)) for seen in np.unique(mask, axis=0) if seen.any()]

    def log_likelihood(free: Any) -> Any:
        loadings, noise = free[:4], np.exp(free[4:])
        covariance = np.outer(loadings, loadings) + np.diag(noise**2)
        return sum(
            stats.multivariate_normal(cov=covariance[np.ix_(seen, seen)]).logpdf(x[rows][:, seen]).sum()
            for seen, rows in patterns
        )

    position = found.state["position"].numpy()
    assert found.info["log_likelihood"] == pytest.approx(log_likelihood(position), abs=1e-8)
    curvature = hessian(
        lambda points: np.apply_along_axis(log_likelihood, 0, points),
        position,
        order=4,
        maxiter=1,
        initial_step=0.02,
    ).ddf
    expected = np.sqrt(np.diag(np.linalg.inv(-curvature)))
    np.testing.assert_allclose(found.state["covariance"].diagonal().sqrt().numpy(), expected, rtol=1e-4)


def test_rows_are_scored_by_draws_of_their_posterior() -> None:
    data = factors_data()
    found = quiet(factors, data)
    z, loadings, noise = (found.samples[name][0] for name in ("z", "loadings", "noise"))
    assert z.shape == (1_000, 80, 1)
    weights = loadings[:, None, :, 0] * data["mask"] / noise[:, None].square()
    precision = 1 + (weights * loadings[:, None, :, 0]).sum(-1)
    residual = (z[..., 0] - (weights * data["x"]).sum(-1) / precision) * precision.sqrt()
    # 80,000 standard normal numbers
    assert abs(float(residual.mean())) < 4 / math.sqrt(80_000)
    assert abs(float(residual.square().mean()) - 1) < 4 * math.sqrt(2 / 80_000)
    assert pyl.predict(found, num_draws=3)["x"].shape == (3, 80, 4)


def test_missing_cells_are_drawn_given_the_observed_ones() -> None:
    data = factors_data()
    data["mask"][0] = torch.tensor([True, True, True, False])
    found = quiet(factors, data)
    cell = pyl.impute(found, num_draws=1_000)["x"][:, 0, 3]
    loadings, noise = found.state["position"][:4], found.state["position"][4:].exp()
    precision = 1 + (loadings / noise).square()[:3].sum()
    score = (loadings * data["x"][0] / noise.square())[:3].sum() / precision
    spread = (loadings[3].square() / precision + noise[3].square()).sqrt()
    # what is not known of the parameters moves the mean of draws little beside 5 standard errors
    assert abs(float(cell.mean() - loadings[3] * score)) < 5 * float(spread) / math.sqrt(1_000)


def test_too_many_scores_are_left_out_with_all_that_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def prices(x: Tensor) -> None:
        mu, sigma = pyro.sample("mu", dist.Normal(0.0, 10.0)), pyro.sample("sigma", dist.HalfNormal(5.0))
        pyro.deterministic("twice", 2 * mu + x.mean())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, sigma), obs=x)
        pyro.deterministic("average", z.mean())

    x = torch.arange(30, dtype=FLOAT)
    whole = quiet(prices, {"x": x}, EM(num_starts=2, num_draws=50))
    assert set(whole.samples) == {"mu", "sigma", "z", "twice", "average"}
    torch.testing.assert_close(whole.samples["average"], whole.samples["z"].mean(-1))
    monkeypatch.setattr("pyrolatent.infer.em_samples.MAX_NUMBERS", 100)
    found = quiet(prices, {"x": x}, EM(num_starts=2, num_draws=50))
    assert set(found.samples) == {"mu", "sigma", "twice"}
    torch.testing.assert_close(found.samples["mu"], whole.samples["mu"])
    torch.testing.assert_close(found.samples["twice"], whole.samples["twice"])


# What is refused


def one_latent(kind: Any, change: Any = lambda z, s: z) -> Any:
    def model(x: Tensor) -> None:
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", kind())
            pyro.sample("x", dist.Normal(change(z, shift), spread), obs=x)

    return model


@pytest.mark.parametrize(
    ("kind", "support"),
    [
        (lambda: dist.Exponential(1.0), r"GreaterThanEq\(lower_bound=0.0\)"),
        (lambda: dist.LogNormal(0.0, 1.0), r"GreaterThan\(lower_bound=0.0\)"),
        (lambda: dist.Uniform(1.0, 2.0), r"Interval\(lower_bound=1.0, upper_bound=2.0\)"),
    ],
)
def test_latents_of_rows_that_cannot_take_every_value_are_refused(kind: Any, support: str) -> None:
    with pytest.raises(ModelError, match=rf"\['z'\].*support is {support}.*use HMC\(\) or SVI\(\)"):
        quiet(one_latent(kind), {"x": torch.ones(5, dtype=FLOAT)})


@pytest.mark.parametrize(
    "model",
    [
        one_latent(lambda: dist.Laplace(0.0, 1.0)),
        one_latent(lambda: dist.StudentT(4.0, 0.0, 1.0)),
        one_latent(lambda: dist.Normal(0.0, 1.0), lambda z, shift: z.clamp(-2, 2)),
        one_latent(lambda: dist.Normal(0.0, 1.0), lambda z, shift: z.clamp(-20, 20)),
        # normal at one half of the values of `shift`, or at the other
        one_latent(lambda: dist.Normal(0.0, 1.0), lambda z, shift: z + z.square() * shift.clamp(min=0.0)),
        one_latent(lambda: dist.Normal(0.0, 1.0), lambda z, shift: z + z.square() * shift.clamp(max=0.0)),
    ],
)
def test_latents_of_rows_that_only_look_normal_are_refused(model: Any) -> None:
    with pytest.raises(ModelError, match=r"\['z'\].*not normal given all else.*not linear in them"):
        quiet(model, {"x": torch.ones(5, dtype=FLOAT)})


def test_latents_of_rows_whose_density_has_no_peak_are_refused() -> None:
    def rising(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(shift, 1.0), obs=x)
            pyro.factor("bend", z.square())

    with pytest.raises(ModelError, match=r"\['z'\].*the density of a row has no peak"):
        quiet(rising, {"x": torch.ones(5, dtype=FLOAT)})


def test_latents_of_rows_in_a_plate_of_another_name_are_refused() -> None:
    def schools(y: Tensor) -> None:
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 10.0)), pyro.sample("tau", dist.HalfNormal(5.0))
        with pyro.plate("schools", len(y)):
            effect = pyro.sample("effect", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(effect, 10.0), obs=y)

    def rows(x: Tensor) -> None:
        loadings = pyro.sample("loadings", dist.Normal(torch.zeros(4), 5.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None] * loadings, 1.0).to_event(1), obs=x)

    with pytest.raises(
        ModelError, match=r"site 'effect', plate 'schools'.*call the plate of the rows 'data'"
    ):
        quiet(schools, {"y": torch.tensor([28.0, 8.0, -3.0])})
    with pytest.raises(ModelError, match=r"site 'z', plate 'rows'.*or use HMC\(\) or SVI\(\)"):
        quiet(rows, {"x": factors_data()["x"]})


def test_a_plate_of_columns_holds_no_latents_of_rows() -> None:
    def columns(x: Tensor) -> None:
        across = pyro.plate("columns", x.shape[1], dim=-1)
        with across:
            location = pyro.sample("location", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x), dim=-2), across:
            pyro.sample("x", dist.Normal(location, 1.0), obs=x)

    x = factors_data(missing=0.0)["x"]
    found = quiet(columns, {"x": x})
    torch.testing.assert_close(found.state["position"], x.mean(0), rtol=0, atol=1e-6)
