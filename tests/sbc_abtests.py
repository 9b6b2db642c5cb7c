"""Tests of two arms, a fifth of their labels masked, as cases of simulation-based calibration."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.column import Column
from pyrolatent.models.abtest import ABTest, Family, Priors
from pyrolatent.revenue import ZeroInflatedLogNormal
from pyrolatent.schema import Schema

Sites = dict[str, Tensor]

ROWS = 15
TOLD = torch.tensor(np.random.default_rng(1).random(ROWS) > 0.2)
LOCATION, SPREAD = 1.0, 0.5
FAMILIES: tuple[Family, ...] = ("normal", "bernoulli", "revenue")


def pair_of(family: Family) -> ABTest:
    """The model with constants that no data change."""
    kind, labels = ("binary", (0.0, 1.0)) if family == "bernoulli" else ("real", ())
    outcome = Column("y", kind, "float64", location=float(family == "revenue"), categories=labels)
    schema = Schema((outcome, Column("arm", "categorical", "object", categories=("a", "b"))))
    return ABTest(schema, "y", "arm", family, priors=Priors(location=LOCATION, spread=SPREAD))


def has_numbers(family: Family) -> bool:
    return family != "bernoulli"


def has_share(family: Family) -> bool:
    return family != "normal"


def prior_of(family: Family) -> Callable[[float], Sites]:
    def prior(factor: float) -> Sites:
        first = torch.rand((), dtype=torch.float64)
        sites = {"share": torch.stack([first, 1 - first])}
        if has_share(family):
            sites["probability"] = torch.rand(2, dtype=torch.float64)
        if has_numbers(family):
            noise = torch.randn(2, 2, dtype=torch.float64)
            sites |= {"location": factor * LOCATION * noise[0], "spread": (SPREAD * noise[1]).exp()}
        return sites

    return prior


def outcomes(family: Family, sites: Sites) -> Any:
    """Return the distributions of both arms, `(S, 2)` or `(2,)`."""
    match family:
        case "normal":
            return dist.Normal(sites["location"], sites["spread"])
        case "bernoulli":
            return dist.Bernoulli(sites["probability"])
        case _:
            return ZeroInflatedLogNormal(sites["probability"], sites["location"], sites["spread"])


def simulate_of(family: Family) -> Callable[[Sites], Sites]:
    def simulate(sites: Sites) -> Sites:
        arm = torch.multinomial(sites["share"], ROWS, replacement=True)
        y = outcomes(family, sites).sample((ROWS,)).gather(1, arm[:, None])[:, 0]
        return {"y": y, "arm": torch.where(TOLD, arm, -1)}

    return simulate


def fit_of(family: Family, method: Any) -> Callable[[Sites, int], pyl.Fit]:
    def fit(data: Sites, seed: int) -> pyl.Fit:
        names = {-1: None, 0: "a", 1: "b"}
        frame = pd.DataFrame({"y": data["y"].numpy(), "arm": [names[k] for k in data["arm"].tolist()]})
        return pyl.fit(pair_of(family), frame, method, seed=seed, compile=False, progress=False)

    return fit


def quantities_of(family: Family) -> Callable[[Sites, Sites], Sites]:
    def quantities(sites: Sites, data: Sites) -> Sites:
        """Every parameter, and the densities, labels that are masked summed out row by row."""
        own = {name: value for name, value in sites.items() if name != "share"}
        found = {"share": sites["share"][:, 0]}
        found |= {f"{name}[{k}]": value[:, k] for name, value in own.items() for k in range(2)}
        log_prob = outcomes(family, own).log_prob(data["y"][:, None, None].expand(-1, *sites["share"].shape))
        log_prob = log_prob + sites["share"].log()
        known = torch.stack([data["arm"] != 1, data["arm"] != 0], -1)[:, None]
        found["log likelihood"] = log_prob.masked_fill(~known, -math.inf).logsumexp(-1).sum(0)
        if has_numbers(family):
            terms = dist.Normal(0.0, LOCATION).log_prob(sites["location"])
            terms = terms + dist.LogNormal(0.0, SPREAD).log_prob(sites["spread"])
            found["log prior"] = terms.sum(-1)
        return found

    return quantities


def abtest_case(family: Family, method: Any) -> tuple[Any, ...]:
    """Return what a case is made of: prior, simulation, fit and what is ranked."""
    return prior_of(family), simulate_of(family), fit_of(family, method), quantities_of(family)
