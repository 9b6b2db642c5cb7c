"""The users' models are what they claim to be, before anything is measured against them."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from tests import user_models as um
from tests.pyro_reference import double_precision, exact_dependent_support, pyro_potential

ALL_MODELS = {**um.REFERENCES, **um.GRADIENT_BAR, **um.RUNG_BAR, "mvn": um.MVN}
Site = dict[str, Tensor]


# Stan's targets, transcribed statement by statement; Stan's `~` drops constants.


def normal(x: Any, mean: Any, sd: Any) -> Tensor:
    x, mean, sd = torch.as_tensor(x), torch.as_tensor(mean), torch.as_tensor(sd)
    return (-0.5 * ((x - mean) / sd) ** 2 - sd.log()).sum()


def cauchy(x: Tensor, scale: float) -> Tensor:
    return -torch.log1p((x / scale) ** 2).sum()


def stan_ar_k(site: Site, y: Tensor, order: int) -> Tensor:
    target = normal(site["alpha"], 0.0, 10.0) + normal(site["beta"], 0.0, 10.0) + cauchy(site["sigma"], 2.5)
    for t in range(order, len(y)):
        mu = site["alpha"]
        for k in range(order):
            mu = mu + site["beta"][k] * y[t - 1 - k]
        target = target + normal(y[t], mu, site["sigma"])
    return target


def stan_eight_schools(site: Site, y: Tensor, sigma: Tensor) -> Tensor:
    theta = site["theta_trans"] * site["tau"] + site["mu"]
    target = normal(site["theta_trans"], 0.0, 1.0) + normal(y, theta, sigma)
    return target + normal(site["mu"], 0.0, 5.0) + cauchy(site["tau"], 5.0)


def stan_gp_poisson(site: Site, x: Tensor, k: Tensor) -> Tensor:
    n, rho, alpha = len(x), site["rho"], site["alpha"]
    cov = torch.empty(n, n)
    for i in range(n):
        for j in range(n):
            cov[i, j] = alpha**2 * torch.exp(-((x[i] - x[j]) ** 2) / (2 * rho**2)) + 1e-10 * (i == j)
    f = torch.linalg.cholesky(cov) @ site["f_tilde"]
    target = 24 * rho.log() - 4 * rho + normal(alpha, 0.0, 2.0) + normal(site["f_tilde"], 0.0, 1.0)
    return target + (k * f - f.exp()).sum()


def stan_kid_score(site: Site, kid_score: Tensor, mom_iq: Tensor, mom_hs: Tensor) -> Tensor:
    b, inter = site["beta"], mom_hs * mom_iq
    mean = b[0] + b[1] * mom_hs + b[2] * mom_iq + b[3] * inter
    return cauchy(site["sigma"], 2.5) + normal(kid_score, mean, site["sigma"])


def stan_gauss_mix(site: Site, y: Tensor) -> Tensor:
    mu, sigma, theta = site["mu"], site["sigma"], site["theta"]
    target = normal(sigma, 0.0, 2.0) + normal(mu, 0.0, 2.0) + 4 * theta.log() + 4 * torch.log1p(-theta)
    for n in range(len(y)):
        first = theta.log() + normal(y[n], mu[0], sigma[0])
        second = torch.log1p(-theta) + normal(y[n], mu[1], sigma[1])
        target = target + torch.logaddexp(first, second)
    return target


STAN: dict[str, Callable[..., Tensor]] = {
    "arK-arK": stan_ar_k,
    "eight_schools-eight_schools_noncentered": stan_eight_schools,
    "gp_pois_regr-gp_pois_regr": stan_gp_poisson,
    "kidiq-kidscore_interaction": stan_kid_score,
    "low_dim_gauss_mix-low_dim_gauss_mix": stan_gauss_mix,
}


def random_points(shapes: dict[str, torch.Size], count: int) -> list[Site]:
    noise = torch.Generator().manual_seed(0)

    def draw(shape: torch.Size) -> Tensor:
        return 2 * torch.rand(shape, generator=noise, dtype=torch.float64) - 1

    return [{name: draw(shape) for name, shape in shapes.items()} for _ in range(count)]


def joint_log_density(model: Callable[..., None], data: um.Data, sites: Site) -> Tensor:
    """Return Pyro's log joint at constrained sites, no Jacobians."""
    return torch.as_tensor(poutine.trace(pyro.condition(model, sites)).get_trace(**data).log_prob_sum())


@pytest.mark.parametrize("name", um.REFERENCES)
def test_reference_model_is_stans_target_up_to_a_constant(name: str) -> None:
    model, make_data = um.REFERENCES[name]
    data, potential = make_data(), pyro_potential(model, make_data())
    differences, size = [], 0.0
    for free in random_points(potential.shapes, 6):
        with double_precision():
            sites = {site: potential.transforms[site](value) for site, value in free.items()}
            ours, stans = joint_log_density(model, data, sites), STAN[name](sites, **data)
        differences.append(float(ours - stans))
        size = max(size, abs(float(stans)))
    # Rounding of the two sums; the GP's kernel has condition 1e10 and more, so that its Cholesky
    # factor's small columns (about 1e-5) keep 11 digits only.
    tolerance = 1e-8 if name.startswith("gp") else 1e-12 * size
    assert differences == pytest.approx([differences[0]] * 6, abs=tolerance)


@pytest.mark.parametrize("name", um.REFERENCES)
def test_sites_cover_the_reference_parameters(name: str) -> None:
    model, make_data = um.REFERENCES[name]
    potential = pyro_potential(model, make_data())
    with double_precision():
        sites = {site: t(torch.zeros(potential.shapes[site])) for site, t in potential.transforms.items()}
        trace = poutine.trace(pyro.condition(model, sites)).get_trace(**make_data())
    values = {site: node["value"] for site, node in trace.nodes.items() if "value" in node}
    scalars = um.by_reference_name({s: v[None, None] for s, v in values.items() if isinstance(v, Tensor)})
    assert set(um.reference(name)) <= set(scalars)


def test_reference_names_count_from_one() -> None:
    beta = torch.arange(12.0).reshape(2, 3, 2)
    named = um.by_reference_name({"beta": beta, "sigma": beta[..., 0]})
    assert list(named) == ["beta[1]", "beta[2]", "sigma"]
    assert torch.equal(named["beta[2]"], beta[..., 1])
    assert torch.equal(named["sigma"], beta[..., 0])


@pytest.mark.parametrize("name", ALL_MODELS)
def test_data_are_the_same_every_time_and_leave_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second = (ALL_MODELS[name][1]() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, Tensor) else value == second[key]


@pytest.mark.parametrize("name", sorted(set(ALL_MODELS) - {"dependent_support"}))
def test_oracle_gradient_is_the_slope_of_its_value(name: str) -> None:
    model, make_data = ALL_MODELS[name]
    potential = pyro_potential(model, make_data())
    point, direction = random_points(potential.shapes, 2)
    step = 1e-5

    def value(t: float) -> float:
        return float(potential.log_density({s: point[s] + t * direction[s] for s in point})[0])

    gradient = potential.log_density(point)[1]
    slope = sum(float((gradient[s] * direction[s]).sum()) for s in point)
    # Central difference: O(step^2) = 1e-10 of the third derivative, rounding 1e-16 * value / step.
    assert (value(step) - value(-step)) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_exact_dependent_support_has_the_conjugate_normaliser() -> None:
    choice = um.dependent_support_data()["choice"]
    log_density = exact_dependent_support(choice)
    # Analytic for |Im u| < pi, so the trapezoid rule with step 0.5 errs by exp(-4 pi^2) = 1e-17; the
    # density falls as exp(-4 |u|) or faster, so [-8, 8] cuts off 1e-13 of a normaliser of 1e-7.
    grid = torch.linspace(-8.0, 8.0, 33, dtype=torch.float64)
    mass = sum(math.exp(float(log_density({"a": a, "b": b})[0])) for a in grid for b in grid) * 0.5**2

    def beta(p: int, q: int) -> float:
        return math.exp(math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q))

    counts = torch.bincount(choice).tolist()
    expected = beta(counts[0] + 1, counts[1] + counts[2] + 1) * beta(counts[1] + 1, counts[2] + 1)
    assert mass == pytest.approx(expected, rel=1e-6)


def dependent_support_at(a: float, b: float) -> tuple[float, float]:
    """Return the exact log density and Pyro's at unconstrained a and b."""
    model, make_data = um.GRADIENT_BAR["dependent_support"]
    point = {"a": torch.tensor(a, dtype=torch.float64), "b": torch.tensor(b, dtype=torch.float64)}
    oracles = exact_dependent_support(**make_data()), pyro_potential(model, make_data()).log_density
    exact, pyros = (float(oracle(point)[0]) for oracle in oracles)
    return exact, pyros


def test_pyro_freezes_dependent_supports() -> None:
    """Should this fail, Pyro has mended it and `pyro_potential` is the oracle here too."""
    exact, pyros = dependent_support_at(-1.0, 0.0)
    assert abs(pyros - exact) > 0.1


def test_exact_dependent_support_is_pyro_where_the_frozen_transform_is_right() -> None:
    """Pyro's trace is at a = 1/2; there both parameterisations agree, Jacobian included."""
    exact, pyros = dependent_support_at(0.0, 0.7)
    assert exact == pytest.approx(pyros, abs=1e-12)
