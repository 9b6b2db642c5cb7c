"""Variational autoencoders of tables with holes.

Each row has a latent vector z ~ N(0, I) of its own, and given it its cells are independent, each with a
distribution that suits its column (`pyrolatent.nn.heads`).  Missing cells are left out of the likelihood,
so that they neither teach the decoder nor are taught to it; the encoder sees which cells are missing.

    p(x_observed) = integral of N(z; 0, I) prod_{d observed} p(x_d | z) dz

Any objective of a pair and its guide fits it: `elbo()` makes it the variational autoencoder (Kingma and
Welling, 2014), `elbo(beta)` the beta-VAE (Higgins et al., 2017), `iwae(K)` on rows with holes the MIWAE
(Mattei and Frellsen, 2019).  With holes the ELBO is loose, since what is missing widens the posterior of
z: `iwae` then finds correlations that `elbo` leaves to noise.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.column import Column
from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.errors import ArgumentError, FitWarning
from pyrolatent.nn import EmbeddingEncoder, Network, RowDecoder, RowEncoder
from pyrolatent.pair import Model, Pair
from pyrolatent.schema import Schema, listing

MANY_LEVELS = 100  # of a categorical column, beyond which few rows speak for each

Encoder = Literal["cells", "embedding"]


@final
@dataclass(frozen=True)
class VAE(Pair):
    """A variational autoencoder over the modelled columns of a table.

    Latent site `z (N, L)`, observed site `x (N, D)`.

    Args:
        columns: The schema of the table, from `infer_schema`.
        latent_dim: L, the dimension of the latent vector of a row.
        hidden: Features of each hidden layer of the decoder; the encoder has them in reverse.
        heavy_tails: Whether numbers have Student's t distributions, with degrees of freedom to learn.
        encoder: "cells" sees [cells, mask] in one vector; "embedding" fills holes with learnt numbers and
            adds what a network of its own makes of the mask.

    Raises:
        ArgumentError: A size is not positive, or there is no such encoder.
    """

    columns: Schema
    latent_dim: int = 8
    hidden: tuple[int, ...] = (64,)
    heavy_tails: bool = False
    encoder: Encoder = "cells"

    def __post_init__(self) -> None:
        check_sizes(self.latent_dim, self.hidden)
        if self.encoder not in get_args(Encoder):
            why = f"got {self.encoder!r}"
            raise ArgumentError("the encoder is unknown", why=why, remedy="choose 'cells' or 'embedding'")
        if self.encoder == "embedding" and not self.hidden:
            raise ArgumentError("the encoder 'embedding' needs a hidden layer", why="got hidden=()")
        for message in absurdities(self.latent_dim, self.columns.modelled):
            warnings.warn(message, FitWarning, stacklevel=3)

    @property
    def schema(self) -> Schema:
        return self.columns

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> Model:
        return self.infer

    @cached_property
    def decoding(self) -> Network:
        columns, hidden, dim, tails = self.columns.modelled, self.hidden, self.latent_dim, self.heavy_tails
        return Network("decoder", lambda: RowDecoder(columns, hidden, dim, tails))

    @cached_property
    def encoding(self) -> Network:
        columns, hidden, dim = self.columns.modelled, self.hidden[::-1], self.latent_dim
        if self.encoder == "embedding":
            return Network("encoder", lambda: EmbeddingEncoder(columns, hidden[-1], dim))
        return Network("encoder", lambda: RowEncoder(columns, hidden, dim))

    def generate(self, x: Tensor, mask: Tensor) -> None:
        """The generative program for `x (N, D)`, observed where `mask (N, D)` is True."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1))
            cells = self.decoding(z)
            pyro.sample("x", ColumnwiseDistribution(cells, mask, self.columns.names), obs=x)

    def infer(self, x: Tensor, mask: Tensor) -> None:
        """The guide: q(z | observed cells) of each row."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoding(x, mask))


def check_sizes(latent_dim: int, hidden: Sequence[int]) -> None:
    """Refuse layers without features.

    Raises:
        ArgumentError: With the size.
    """
    if latent_dim < 1:
        raise ArgumentError("latent_dim must be positive", why=f"got {latent_dim}")
    if any(size < 1 for size in hidden):
        raise ArgumentError("a hidden layer has no features", why=f"got hidden={tuple(hidden)}")


def absurdities(latent_dim: int, columns: Sequence[Column]) -> list[str]:
    """Return what is possible and seldom meant."""
    found = []
    if latent_dim > 2 * len(columns):
        found.append(
            f"A latent vector of {latent_dim} numbers for rows of {len(columns)} columns: most of them will "
            "not be used. Choose latent_dim below the number of columns."
        )
    many = [column.name for column in columns if len(column.categories) > MANY_LEVELS]
    if many:
        found.append(
            f"Columns {listing(many)} have more than {MANY_LEVELS} labels, so few rows speak for each. Merge "
            'rare labels, or declare the columns "skip" (infer_schema(frame, kinds=...)).'
        )
    return found
