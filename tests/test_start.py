"""Chains that begin at the draws of an earlier fit."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from tqdm import tqdm

import pyrolatent as pyl
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.diagnostics import mcse_mean
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.movers import Trajectories
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.sampler import Plan, Sampler
from pyrolatent.infer.start import ascend, neighbourhoods, spaced, starting_draws
from pyrolatent.infer.svi import SVI
from pyrolatent.infer.tuning import flat_covariance
from pyrolatent.kernels.ascent import lbfgs_ascent
from pyrolatent.kernels.leapfrog import Step, density_of, leapfrog_step
from pyrolatent.ranks import ALONE
from pyrolatent.result import Fit
from pyrolatent.seeds import generator

SEED = 2


def line(x: Tensor, y: Tensor) -> None:
    """A regression on raw columns, whose coefficients are of unequal scales and correlated."""
    slopes = pyro.sample("slopes", dist.Normal(0.0, 1e3).expand([x.shape[1]]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(5.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ slopes, noise), obs=y)


def line_data() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    age = 20 + 40 * torch.rand(60, generator=random, dtype=torch.float64)
    x = torch.stack([torch.ones_like(age), age, age**2 / 50], 1)
    return {"x": x, "y": 3 + 0.5 * age + torch.randn(60, generator=random, dtype=torch.float64)}


def fitted() -> Fit:
    return pyl.fit(line, line_data(), Laplace(), seed=SEED)


def made(density: LogDensity, step: Step, bar: "tqdm[None]") -> Sampler:
    """Return a sampler of 16 chains that warms up in 40 transitions."""
    evaluate = density_of(step, flat_covariance(density))
    mover = Trajectories(step)
    return Sampler(density, evaluate, mover, Plan(16, 4, 40, 10), generator(SEED, "hmc"), bar)


def warm_up_steps(start: Fit | None) -> int:
    """Return how many calls of the leapfrog step the warm-up takes, its ascent included."""
    density = capture_density(line, line_data(), seed=SEED)
    step, count = leapfrog_step(density.batched), 0

    def counted(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nonlocal count
        count += 1
        return step(*arguments)

    with density.context(), torch.no_grad(), progress_bar(100, wanted=False) as bar:
        sampler = made(density, counted, bar)
        run, _ = sampler.begin(lambda: None if start is None else starting_draws(density, start))
        sampler.warm_up(run)
    return count


def test_hmc_finds_the_same_posterior_with_less_work() -> None:
    start = fitted()
    plain = pyl.fit(line, line_data(), pyl.HMC(), seed=SEED)
    begun = pyl.fit(line, line_data(), pyl.HMC(), start=start, seed=SEED + 1)
    assert plain.warnings == begun.warnings == ()
    for site, draws in plain.samples.items():
        error = torch.hypot(mcse_mean(draws), mcse_mean(begun.samples[site]))
        difference = (draws.mean((0, 1)) - begun.samples[site].mean((0, 1))).abs()
        assert float((difference / error).max()) < 4
    # What is saved is the ascent.
    assert warm_up_steps(start) < 0.8 * warm_up_steps(None)


def test_one_draw_for_each_superchain() -> None:
    start = fitted()
    density = capture_density(line, line_data(), seed=SEED)
    with density.context(), torch.no_grad(), progress_bar(0, wanted=False) as bar:
        draws = starting_draws(density, start)
        tuned = made(density, leapfrog_step(density.batched), bar).first_tuning(draws)
    position = tuned.state.position.unflatten(0, (4, 4))
    assert torch.equal(position, position[:, :1].expand_as(position))
    assert torch.equal(position[:, 0], draws[[0, 333, 666, 999]])
    # The metric has the draws' variances, and their correlations but for the weight of 9 draws of 1,000.
    covariance = torch.cov(draws.mT, correction=0)
    torch.testing.assert_close(tuned.metric.covariance.diagonal(), covariance.diagonal(), rtol=1e-6, atol=0)
    off = covariance / covariance.diagonal().sqrt() / covariance.diagonal().sqrt()[:, None]
    found = tuned.metric.covariance / covariance.diagonal().sqrt() / covariance.diagonal().sqrt()[:, None]
    torch.testing.assert_close(found, off, rtol=0, atol=0.01)


def hills(position: Tensor) -> tuple[Tensor, Tensor]:
    """Two of one height, around (0, 0) and around (10, 10), where it is half as wide."""
    second = position[:, :1] > 5
    centre, precision = torch.where(second, 10.0, 0.0), torch.where(second, 4.0, 1.0)
    return -0.5 * (precision * (position - centre) ** 2).sum(-1), -precision * (position - centre)


def test_hessians_of_points_in_one_place_are_taken_once() -> None:
    points, calls = torch.tensor([[0.0, 0.0], [10.0, 10.0], [1e-3, 0.0]], dtype=torch.float64), []

    def counted(position: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(position))
        return hills(position)

    evidence, covariance = neighbourhoods(counted, points, hills(points)[0], 4)
    assert calls == [4, 4]  # two points of two dimensions, two gradients each
    torch.testing.assert_close(evidence, torch.tensor([0.0, -math.log(4), -5e-7], dtype=torch.float64))
    unit = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(covariance, torch.stack([unit, unit / 4, unit]))


def test_an_ascent_begins_on_the_wider_hill() -> None:
    begin = torch.tensor([[9.0, 9.0], [-1.0, 2.0], [200.0, 10.0]], dtype=torch.float64)
    position, metric = ascend(hills, begin.repeat_interleave(2, 0), 2, ALONE)
    summit = torch.tensor([[10.0, 10.0], [0.0, 0.0], [10.0, 10.0]], dtype=torch.float64)
    torch.testing.assert_close(position, summit.repeat_interleave(2, 0), atol=1e-3, rtol=0)
    torch.testing.assert_close(metric.covariance, torch.eye(2, dtype=torch.float64))


def test_no_ascent_begins_in_a_neck_however_high() -> None:
    """x ~ N(0, exp(2 t)) in 40 dimensions: the density climbs by 40 nats for each unit that t falls, the mass
    of t is that of its prior, N(0, 9)."""

    def neck(position: Tensor) -> tuple[Tensor, Tensor]:
        t, x = position[:, :1], position[:, 1:]
        square, dim = (x * (-t).exp()) ** 2, x.shape[1]
        value = -0.5 * (t**2 / 9 + square.sum(-1, keepdim=True)) - dim * t
        slope = -t / 9 + square.sum(-1, keepdim=True) - dim
        return value[:, 0], torch.cat([slope, -x * (-2 * t).exp()], 1)

    begin = torch.rand(4, 41, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    position, _ = ascend(neck, begin, 1, ALONE)
    assert float(position[:, 0].min()) > -12  # 4 standard deviations


def test_an_ascent_reaches_the_top_along_flat_directions() -> None:
    """Scales from a hundredth to a hundred, 8 standard deviations away: L-BFGS alone gives up below."""
    scales = torch.logspace(-2, 2, 30, dtype=torch.float64)

    def hill(position: Tensor) -> tuple[Tensor, Tensor]:
        white = position / scales
        return -0.5 * (white**2).sum(-1), -white / scales

    begin = torch.stack([8 * scales, torch.zeros_like(scales)])
    assert float(hill(lbfgs_ascent(hill, begin, 1_000))[0].min()) < -4
    position, metric = ascend(hill, begin, 1, ALONE)
    assert float(hill(position)[0].min()) > -0.01
    torch.testing.assert_close(metric.covariance.diagonal(), scales**2, rtol=1e-4, atol=0)


def test_few_draws_serve_several_chains() -> None:
    draws = torch.arange(3.0)[:, None]
    assert spaced(draws, 5).flatten().tolist() == [0, 0, 1, 2, 2]


def test_draws_that_the_data_exclude_are_refused() -> None:
    """A fit of the same sites to other data may begin where this density is zero."""

    def below(limit: Tensor) -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("limit", torch.where(x < limit, 0.0, -torch.inf))

    start = pyl.fit(below, {"limit": torch.tensor(9.0)}, Laplace(), seed=SEED)
    words = "not finite at draws of the fit to start from: .* of 64 chains"
    with pytest.raises(pyl.ModelError, match=words):
        pyl.fit(below, {"limit": torch.tensor(-1.0)}, pyl.HMC(), start=start, seed=SEED)


def test_other_shapes_are_refused() -> None:
    start = fitted()
    fewer = {"x": line_data()["x"][:, :2], "y": line_data()["y"]}
    words = r"other latent sites: draws of {'slopes': \(3,\), .* where this model has {'slopes': \(2,\)"
    with pytest.raises(pyl.ModelError, match=words):
        pyl.fit(line, fewer, pyl.HMC(), start=start, seed=SEED)


def test_a_start_in_single_precision_serves_in_double() -> None:
    start = pyl.fit(line, line_data(), Laplace(), seed=SEED, dtype=torch.float32)
    fit = pyl.fit(line, line_data(), pyl.HMC(), start=start, seed=SEED, dtype=torch.float64)
    assert fit.samples["slopes"].dtype is torch.float64


def test_hmc_keeps_what_svi_learnt() -> None:
    """A parameter of the model stays where training left it, and the latent site is sampled given that."""

    def empirical_bayes(y: Tensor) -> None:
        width = pyro.param("width", torch.tensor(1.5), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, width))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    start = pyl.fit(empirical_bayes, {"y": y}, SVI(num_steps=300, lr=0.05), seed=SEED)
    fit = pyl.fit(empirical_bayes, {"y": y}, pyl.HMC(num_chains=16), start=start, seed=SEED)
    width = float(start.params["width"])
    assert float(fit.params["width"]) == pytest.approx(width)
    mean, sd = 7 / (3 + width**-2), (3 + width**-2) ** -0.5
    ess = float(fit.diagnostics["mean"]["ess"])
    assert float(fit.samples["mean"].mean()) == pytest.approx(mean, abs=4 * sd / math.sqrt(ess))
