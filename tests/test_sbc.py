"""Simulation-based calibration of whole fits (Talts et al. 2018; Modrák et al. 2023).

Draw parameters from the prior and data given them, fit, and rank the truth among thinned draws: over
many replicates the ranks are uniform if the fit draws from the posterior.  Ranked are each parameter,
the log-likelihood and the log prior, which see data and prior as a whole.

Few rows, so that the prior counts: with 60 rows, one whose scales are 20 % off moves the posterior by
some .04 of its sd, which no 500 replicates can show.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.models import BayesianMVN
from pyrolatent.seeds import seeded
from tests.calibration import LEVEL, joint_p_value, p_values
from tests.sbc_abtests import FAMILIES, abtest_case

REPLICATES, THIN = 500, 10
METHOD = pyl.HMC(num_chains=64, num_warmup=100, num_draws=2 * THIN)
NUM_DRAWS = 2 * 64 - 1  # thinned draws of all chains but one, so that there are 128 ranks

Sites = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A model under test.

    Attributes:
        prior: Draws the sites once; the constants of their scales are those of the model times a factor.
        simulate: Draws data given the sites.
        fit: Fits the model to data under a seed.
        quantities: What is ranked, for sites `(S, *site)`, each `(S,)`.
    """

    prior: Callable[[float], Sites]
    simulate: Callable[[Sites], Sites]
    fit: Callable[[Sites, int], pyl.Fit]
    quantities: Callable[[Sites, Sites], Sites]


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def named(name: str, columns: Tensor) -> Sites:
    """Return the entries of `columns (S, K)` by name."""
    return {f"{name}[{k}]": column for k, column in enumerate(columns.T)}


# The multivariate normal with holes

COLUMNS, ROWS, ETA = 3, 9, 2.0
SEEN = torch.tensor(np.random.default_rng(0).random((ROWS, COLUMNS)) > 0.2)


def lkj_cholesky(dim: int, eta: float) -> Tensor:
    """Draw the factor of a correlation matrix from LKJ(eta), partial correlation by partial correlation.

    Lewandowski et al. (2009), section 2.  Not by torch 2.13, which draws the wrong radius from the third
    row on (its `log_prob` is right): variances of .214 where LKJ(2) in three dimensions has 1/6.
    """
    factor = torch.zeros(dim, dim, dtype=torch.float64)
    for i in range(dim):
        rest = torch.ones((), dtype=torch.float64)
        for j in range(i):
            shape = rest.new_tensor(eta + (dim - 2 - j) / 2)
            partial = 2 * dist.Beta(shape, shape).sample() - 1
            factor[i, j] = partial * rest.sqrt()
            rest = rest * (1 - partial**2)
        factor[i, i] = rest.sqrt()
    return factor


def mvn_prior(factor: float) -> Sites:
    cholesky = lkj_cholesky(COLUMNS, ETA)
    mean, scale = factor * normals(COLUMNS), factor * normals(COLUMNS).abs()
    return {"mean": mean, "scale": scale, "correlation": cholesky @ cholesky.mT}


def mvn_simulate(sites: Sites) -> Sites:
    covariance = sites["scale"][:, None] * sites["correlation"] * sites["scale"]
    rows = dist.MultivariateNormal(sites["mean"], covariance).sample((ROWS,))
    return {"x": torch.where(SEEN, rows, torch.nan)}


def mvn_fit(data: Sites, seed: int) -> pyl.Fit:
    frame = pd.DataFrame(data["x"].numpy(), columns=list("abc"))
    schema = pyl.infer_schema(frame, kinds=dict.fromkeys(frame, "real"))
    pair = BayesianMVN(schema, eta=ETA, standardise=False)
    return pyl.fit(pair, frame, METHOD, seed=seed, compile=False, progress=False)


def mvn_quantities(sites: Sites, data: Sites) -> Sites:
    """Every entry, and densities by the cells that are there, row by row."""
    mean, scale, correlation = sites["mean"], sites["scale"], sites["correlation"]
    covariance = scale[:, :, None] * correlation * scale[:, None, :]
    likelihood = torch.zeros(len(mean), dtype=mean.dtype)
    for row, seen in zip(data["x"], SEEN, strict=True):
        if seen.any():
            block = covariance[:, seen][:, :, seen]
            likelihood = likelihood + dist.MultivariateNormal(mean[:, seen], block).log_prob(row[seen])
    # LKJ's density of a correlation matrix (Lewandowski et al. 2009) is its determinant to the eta - 1.
    prior = (ETA - 1) * torch.logdet(correlation) - 0.5 * (mean**2 + scale**2).sum(-1)
    low = torch.tril_indices(COLUMNS, COLUMNS, -1)
    parameters = named("mean", mean) | named("scale", scale)
    parameters |= named("correlation", correlation[:, low[0], low[1]])
    return parameters | {"log likelihood": likelihood, "log prior": prior}


# A hierarchy that a user writes

GROUPS, ERROR = 5, 1.0


def hierarchy(y: Tensor) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        group = pyro.deterministic("group", centre + spread * shift)
        pyro.sample("y", dist.Normal(group, ERROR), obs=y)


def hierarchy_prior(factor: float) -> Sites:
    centre, spread = factor * normals(), factor * normals().abs()
    return {"centre": centre, "spread": spread, "group": centre + spread * normals(GROUPS)}


def hierarchy_simulate(sites: Sites) -> Sites:
    return {"y": sites["group"] + ERROR * normals(GROUPS)}


def hierarchy_fit(data: Sites, seed: int) -> pyl.Fit:
    return pyl.fit(hierarchy, data, METHOD, seed=seed, compile=False, progress=False)


def hierarchy_quantities(sites: Sites, data: Sites) -> Sites:
    centre, spread, group = sites["centre"], sites["spread"], sites["group"]
    prior = dist.Normal(centre[:, None], spread[:, None]).log_prob(group).sum(-1)
    return {
        "centre": centre,
        "spread": spread,
        **named("group", group),
        "log likelihood": dist.Normal(group, ERROR).log_prob(data["y"]).sum(-1),
        "log prior": prior - 0.5 * (centre**2 + spread**2),
    }


CASES = {
    "mvn with holes": Case(mvn_prior, mvn_simulate, mvn_fit, mvn_quantities),
    "hierarchy": Case(hierarchy_prior, hierarchy_simulate, hierarchy_fit, hierarchy_quantities),
    **{f"A/B test, {family}": Case(*abtest_case(family, METHOD)) for family in FAMILIES},
}


# Replicates


@pytest.mark.parametrize(("dim", "eta"), [(3, 2.0), (4, 1.0)])
def test_simulated_correlations_have_the_moments_of_lkj(dim: int, eta: float) -> None:
    """(r + 1) / 2 ~ Beta(b, b), b = eta + dim / 2 - 1: a variance of r of 1 / (2 b + 1), in every entry."""
    number = 4_000
    factors = torch.stack([lkj_cholesky(dim, eta) for _ in range(number)])
    low = torch.tril_indices(dim, dim, -1)
    squares = (factors @ factors.mT)[:, low[0], low[1]] ** 2
    error = squares.std(0) / number**0.5
    assert ((squares.mean(0) - 1 / (2 * eta + dim - 1)).abs() < 4 * error).all()


def replicate(case: Case, seed: int, factor: float = 1.0) -> dict[str, int]:
    """Return the rank of the truth for each quantity in one simulated fit."""
    with seeded(seed, "truth"):
        truth = case.prior(factor)
        data = case.simulate(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)  # short runs: the ranks judge them
        samples = case.fit(data, seed).samples
    draws = {site: samples[site][:, THIN - 1 :: THIN].flatten(0, 1)[:NUM_DRAWS] for site in truth}
    found = case.quantities(draws, data)
    true = case.quantities({site: value[None] for site, value in truth.items()}, data)
    return {name: int((found[name] < true[name]).sum()) for name in found}


def simulated(name: str, factor: float = 1.0) -> pd.DataFrame:
    """Return the ranks of a case, a row for each replicate, a column for each quantity."""
    return pd.DataFrame([replicate(CASES[name], seed, factor) for seed in range(REPLICATES)])


@pytest.mark.verify
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform(name: str) -> None:
    ranks = simulated(name)
    found = dict(zip(ranks, p_values(ranks.to_numpy(), NUM_DRAWS), strict=True))
    assert joint_p_value(ranks.to_numpy(), NUM_DRAWS) > 1 - LEVEL, found


@pytest.mark.verify
def test_a_prior_that_is_20_percent_off_shows() -> None:
    ranks = simulated("mvn with holes", factor=1.2)
    assert joint_p_value(ranks.to_numpy(), NUM_DRAWS) < 1 - LEVEL
