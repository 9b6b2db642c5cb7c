"""The Bayesian multivariate normal with LKJ prior, for tables with holes.

Means are Normal(0, 1), scales HalfNormal(1), correlations LKJ(eta), on standardised columns or,
with `standardise=False`, on the raw ones.  Positive columns enter as logs, those of the unit interval
as log-odds, counts and ordinals as numbers.  Missing cells are integrated out exactly
(`IncompleteMVN`), so rows with holes inform what they can and nothing is imputed while fitting.
"""

import math
from dataclasses import dataclass
from typing import final

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.distributions import IncompleteMVN
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.pair import Model, Pair
from pyrolatent.schema import Schema

DISCRETE = ("binary", "categorical")
MAX_COLUMNS = 100  # 4,950 correlations; beyond, sampling takes hours and the start overflows


@final
@dataclass(frozen=True)
class BayesianMVN(Pair):
    """A multivariate normal over the modelled columns of a table.

    Sites in the table's units (logs for positive columns, log-odds for those of the unit interval):
    `mean (D,)`, `scale (D,)`, `covariance (D, D)`, `correlation (D, D)`.

    Args:
        columns: The schema of the table, from `infer_schema`.
        eta: Shape of the LKJ prior; 1 is uniform over correlation matrices, more pulls to zero.
        standardise: Whether the priors hold for standardised columns or for raw ones.

    Raises:
        DataError: A column is binary or categorical, or there are more than 100.
        ArgumentError: `eta` is not positive and finite.
    """

    columns: Schema
    eta: float = 1.0
    standardise: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.eta < math.inf:
            raise ArgumentError(
                "eta must be positive and finite",
                why=f"got {self.eta}",
                remedy="1 is uniform over correlations",
            )
        discrete = [column.name for column in self.columns.modelled if column.kind in DISCRETE]
        if discrete:
            raise DataError(
                "a multivariate normal cannot hold binary or categorical columns",
                where=f"columns {discrete}",
                remedy='drop them (--drop on the command line), or declare them "skip" to carry them along '
                "untouched (infer_schema(frame, kinds=...), --schema on the command line)",
            )
        if (number := len(self.columns.modelled)) > MAX_COLUMNS:
            raise DataError(
                "too many columns for a multivariate normal",
                why=f"{number:,} columns have {number * (number - 1) // 2:,} correlations",
                remedy=f"keep at most {MAX_COLUMNS} columns",
            )

    @property
    def schema(self) -> Schema:
        return self.columns if self.standardise else self.columns.unscaled()

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> None:
        return None

    def generate(self, x: Tensor, mask: Tensor) -> None:
        """The generative program for `x (N, D)`, observed where `mask (N, D)` is True."""
        num_rows, dim = x.shape
        location = pyro.sample("location", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(torch.ones(dim)).to_event(1))
        cholesky = (
            pyro.sample("correlation_cholesky", dist.LKJCholesky(dim, self.eta))
            if dim > 1
            else torch.ones(1, 1)
        )
        self.record(location, spread, cholesky)
        with pyro.plate("data", num_rows):
            pyro.sample("x", IncompleteMVN(location, spread[:, None] * cholesky, mask), obs=x)

    def record(self, location: Tensor, spread: Tensor, cholesky: Tensor) -> None:
        """Record what a user reads, in the table's units."""
        schema = self.schema
        centre, unit = schema.location_vector.to(location), schema.scale_vector.to(location)
        scale = pyro.deterministic("scale", unit * spread)
        pyro.deterministic("mean", centre + unit * location)
        product = cholesky @ cholesky.mT
        exact = torch.where(torch.eye(len(product), dtype=torch.bool, device=product.device), 1.0, product)
        correlation = pyro.deterministic("correlation", exact)
        pyro.deterministic("covariance", scale[:, None] * scale * correlation)
