"""Fits for tests of what is done with them afterwards: seconds each, made once, too short to trust."""

import functools
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.ampute import ampute
from pyrolatent.errors import FitWarning
from pyrolatent.fit import fit
from pyrolatent.imputations import Imputations
from pyrolatent.impute import impute
from pyrolatent.infer.hmc import HMC
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.result import Fit
from pyrolatent.schema import infer_schema

SHORT = HMC(num_chains=4, num_warmup=20, num_draws=10)


def full_table() -> pd.DataFrame:
    """40 rows: two real columns and a count that go together, dates beside them, labels as index."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=40)
    frame = pd.DataFrame(
        {
            "<b>height</b> & more": 170 + 8 * common + rng.normal(size=40),
            "when": pd.date_range("2024-01-01", periods=40),
            "$weight$": -3 + 0.1 * common + 0.1 * rng.normal(size=40),
            "visits": rng.poisson(np.exp(2 + 0.5 * common)) + 20 * (common > 2),
        }
    )
    frame.index = pd.Index([f"subject {number}" for number in range(40)], name="person")
    return frame


def holed_table() -> pd.DataFrame:
    return ampute(full_table(), fraction=0.2, seed=1)


@functools.cache
def table_fit() -> Fit:
    frame = holed_table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(BayesianMVN(infer_schema(frame), eta=2.0), frame, SHORT, seed=1)


def completed(fit: Fit, frame: pd.DataFrame | None = None, num_draws: int = 3) -> Imputations:
    """Complete a table that has a count column, of which a warning tells."""
    with pytest.warns(FitWarning, match="Imputations of .* are numbers rounded"):
        return impute(fit, frame, num_draws)


def line(x: Tensor, y: Tensor, powers: tuple[int, int], name: str, nothing: None = None) -> None:
    """A user's model with constants of several types, and a site whose name is no identifier."""
    slope = pyro.sample(f"{name}/slope", dist.Normal(0.0, 10.0).expand([len(powers)]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    mean = pyro.deterministic("mean", sum(b * x**p for b, p in zip(slope, powers, strict=True)))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, noise), obs=y)


@functools.cache
def function_fit() -> Fit:
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    y = 0.5 * x - x**2 + 0.1 * torch.sin(31 * x)
    data = {"x": x, "y": y, "powers": (1, 2), "name": "a", "nothing": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(line, data, SHORT, seed=2)
