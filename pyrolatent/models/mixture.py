"""Mixtures: rows of a table come from K components, whose labels nobody has seen.

Within a component the cells of a row are independent, each with a distribution that suits its column, so
that what columns have to do with one another is the component's doing (latent classes, Lazarsfeld and
Henry 1968; with numbers alone a mixture of normals with diagonal covariances).  The component of a row is
summed out exactly, and missing cells are left out.

| kind | distribution of a cell in component k |
|---|---|
| real, positive (its log), unit interval (its log-odds), count, ordinal numbers | normal |
| binary | Bernoulli |
| categorical, ordinal labels | categorical |

All parameters are cells of latent sites, copied and nothing else, so that EM has formulas for them.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any, final

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.errors import ArgumentError, FitWarning
from pyrolatent.models.vae import absurdities
from pyrolatent.ordered import Ordered
from pyrolatent.pair import Model, Pair
from pyrolatent.schema import Schema

Names = tuple[str | int, ...]
Tables = dict[Any, tuple[Any, ...]]  # column, or several -> class of distributions, parameters by component


@final
@dataclass(frozen=True)
class Mixture(Pair):
    """A mixture of K components over the modelled columns of a table, independent within each.

    Discrete site `component (N,)`, observed site `x (N, D)`.  Sites in the table's units (logs for positive
    columns, log-odds for those of the unit interval): `mean (K, D_numeric)`, `scale (K, D_numeric)`.  Besides
    `share (K,)` of the components, `probability (K, D_binary)` of the second label of binary columns, and
    `levels_NAME (K, L)`, the shares of the labels of column NAME.

    Components are numbered by their means in the first column of numbers, which had better tell them apart:
    where it does not, or there is none, chains of a sampler may number them differently.

    Priors are those of standardised columns: means Normal(0, 5), scales LogNormal(0, 1), shares and
    probabilities uniform.

    Args:
        columns: The schema of the table, from `infer_schema`.
        num_components: K.

    Raises:
        ArgumentError: `num_components` is not a whole number, or below 2.
    """

    columns: Schema
    num_components: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.num_components, int) or self.num_components < 2:
            why, remedy = f"got {self.num_components!r}", "BayesianMVN(schema) has a single one"
            raise ArgumentError("num_components must be a whole number from 2", why=why, remedy=remedy)
        for message in absurdities(1, self.columns):  # those of labels alone: no latent vector is too long
            warnings.warn(message, FitWarning, stacklevel=3)

    @property
    def schema(self) -> Schema:
        """That of the table, in which ordinal labels are codes: they are no numbers here."""
        codes = [replace(c, location=0.0, scale=1.0) if c.categories else c for c in self.columns.columns]
        return replace(self.columns, columns=tuple(codes))

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> None:
        return None

    @property
    def numeric(self) -> Schema:
        """The columns that are numbers."""
        return Schema(tuple(column for column in self.columns.modelled if not column.categories))

    @property
    def binary(self) -> Names:
        """The names of the binary columns."""
        return tuple(column.name for column in self.columns.modelled if column.kind == "binary")

    @property
    def labelled(self) -> dict[str | int, int]:
        """Names of the columns of labels, with the number of these."""
        columns = [c for c in self.columns.modelled if c.categories and c.kind != "binary"]
        return {column.name: len(column.categories) for column in columns}

    def generate(self, x: Tensor, mask: Tensor) -> None:
        """The generative program for `x (N, D)`, observed where `mask (N, D)` is True."""
        share = pyro.sample("share", dist.Dirichlet(torch.ones(self.num_components)))
        tables = self.of_numbers() | self.of_binaries() | self.of_labels()
        with pyro.plate("data", len(x)):
            component = pyro.sample("component", dist.Categorical(share))
            cells = {
                names: kind(*(table[component] for table in parameters))
                for names, (kind, *parameters) in tables.items()
            }
            pyro.sample("x", ColumnwiseDistribution(cells, mask, self.columns.names), obs=x)

    def of_numbers(self) -> Tables:
        """Draw locations and spreads `(K, D_numeric)`, and record them in the table's units."""
        names = self.numeric.names
        if not names:
            return {}
        location = self.locations(len(names))
        spread = pyro.sample("spread", dist.LogNormal(torch.zeros_like(location), 1.0).to_event(2))
        centre, unit = (v.to(location) for v in (self.numeric.location_vector, self.numeric.scale_vector))
        pyro.deterministic("mean", centre + unit * location)
        pyro.deterministic("scale", unit * spread)
        return {names: (dist.Normal, location, spread)}

    def locations(self, num_columns: int) -> Tensor:
        """Draw locations `(K, num_columns)`, in order in the first column, which names the components."""
        number = self.num_components
        first = pyro.sample("first", Ordered(dist.Normal(0.0, 5.0), number))[:, None]
        if num_columns == 1:
            return first
        zeros = torch.zeros(number, num_columns - 1)
        return torch.cat([first, pyro.sample("rest", dist.Normal(zeros, 5.0).to_event(2))], -1)

    def of_binaries(self) -> Tables:
        """Draw the probabilities `(K, D_binary)` of the second label."""
        if not self.binary:
            return {}
        ones = torch.ones(self.num_components, len(self.binary))
        return {self.binary: (dist.Bernoulli, pyro.sample("probability", dist.Beta(ones, 1.0).to_event(2)))}

    def of_labels(self) -> Tables:
        """Draw the shares `(K, L)` of the labels of each column."""
        ones = {name: torch.ones(self.num_components, size) for name, size in self.labelled.items()}
        return {
            name: (dist.Categorical, pyro.sample(f"levels_{name}", dist.Dirichlet(one).to_event(1)))
            for name, one in ones.items()
        }
