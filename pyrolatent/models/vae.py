"""Variational autoencoders of tables with holes, and of images.

Each row has a latent vector z ~ N(0, I) of its own, and given it its cells are independent, each with a
distribution that suits its column (`pyrolatent.nn.heads`), or its pixels, with one that suits them
(`pyrolatent.images`).  Missing cells are left out of the likelihood, so that they neither teach the
decoder nor are taught to it; the encoder sees which cells are missing.

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
from typing import final, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.column import Column
from pyrolatent.errors import ArgumentError, FitWarning
from pyrolatent.images import Images
from pyrolatent.nn import Encoder, Network, Rows, decoder_of, encoder_of, observed, seen_in
from pyrolatent.pair import Model, Pair
from pyrolatent.schema import Schema, listing

MANY_LEVELS = 100  # of a categorical column, beyond which few rows speak for each


@final
@dataclass(frozen=True)
class VAE(Pair):
    """A variational autoencoder over the modelled columns of a table, or over images.

    Latent site `z (N, L)`, observed site `x`: `(N, D)` of a table, `(N, C, H, W)` of images.

    Args:
        rows: The schema of the table, from `infer_schema`; or `Images(shape)`.
        latent_dim: L, the dimension of the latent vector of a row.
        hidden: Features of each dense hidden layer of the decoder; the encoder has them in reverse.
        heavy_tails: Whether numbers of a table have Student's t distributions, with degrees of freedom to
            learn.
        encoder: Of a table: "cells" sees [cells, mask] in one vector; "embedding" fills holes with learnt
            numbers and adds what a network of its own makes of the mask.

    Raises:
        ArgumentError: A size is not positive, there is no such encoder, or images have no use for a
            setting.
    """

    rows: Rows
    latent_dim: int = 8
    hidden: tuple[int, ...] = (64,)
    heavy_tails: bool = False
    encoder: Encoder = "cells"

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Schema | Images):
            why, remedy = f"got {type(self.rows).__name__}", "pass infer_schema(frame), or Images(shape)"
            raise ArgumentError("the rows are neither a schema nor images", why=why, remedy=remedy)
        check_sizes(self.latent_dim, self.hidden)
        if self.encoder not in get_args(Encoder):
            why = f"got {self.encoder!r}"
            raise ArgumentError("the encoder is unknown", why=why, remedy="choose 'cells' or 'embedding'")
        if self.encoder == "embedding" and not self.hidden:
            raise ArgumentError("the encoder 'embedding' needs a hidden layer", why="got hidden=()")
        if isinstance(self.rows, Images) and (self.heavy_tails or self.encoder != "cells"):
            raise ArgumentError("heavy_tails and encoder are settings of tables", why="got images")
        for message in absurdities(self.latent_dim, self.rows):
            warnings.warn(message, FitWarning, stacklevel=3)

    @property
    def schema(self) -> Schema | None:
        return self.rows if isinstance(self.rows, Schema) else None

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> Model:
        return self.infer

    @cached_property
    def decoding(self) -> Network:
        return Network("decoder", decoder_of(self.rows, self.hidden, self.latent_dim, self.heavy_tails))

    @cached_property
    def encoding(self) -> Network:
        return Network("encoder", encoder_of(self.rows, self.hidden[::-1], self.latent_dim, self.encoder))

    def generate(self, x: Tensor, mask: Tensor | None = None) -> None:
        """The generative program for rows `x`, observed where `mask`, of its shape, is True."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1))
            cells = observed(self.rows, self.decoding(z), seen_in(self.rows, x, mask))
            pyro.sample("x", cells, obs=x)

    def infer(self, x: Tensor, mask: Tensor | None = None) -> None:
        """The guide: q(z | observed cells) of each row."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoding(x, seen_in(self.rows, x, mask)))


def check_sizes(latent_dim: int, hidden: Sequence[int]) -> None:
    """Refuse layers without features.

    Raises:
        ArgumentError: With the size.
    """
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ArgumentError("latent_dim must be a positive whole number", why=f"got {latent_dim}")
    if any(not isinstance(size, int) or size < 1 for size in hidden):
        raise ArgumentError("a hidden layer has no features", why=f"got hidden={tuple(hidden)}")


def absurdities(latent_dim: int, rows: Rows) -> list[str]:
    """Return what is possible and seldom meant."""
    columns: Sequence[Column] = () if isinstance(rows, Images) else rows.modelled
    cells, name = (rows.num_pixels, "pixels") if isinstance(rows, Images) else (len(columns), "columns")
    found = []
    if latent_dim > 2 * cells:
        found.append(
            f"A latent vector of {latent_dim} numbers for rows of {cells} {name}: most of them will "
            f"not be used. Choose latent_dim below the number of {name}."
        )
    many = [column.name for column in columns if len(column.categories) > MANY_LEVELS]
    if many:
        found.append(
            f"Columns {listing(many)} have more than {MANY_LEVELS} labels, so few rows speak for each. Merge "
            'rare labels, or declare the columns "skip" (infer_schema(frame, kinds=...)).'
        )
    return found
