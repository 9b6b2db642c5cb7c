"""Multi-stage autoencoders: what a disentangled first stage leaves out, a second one adds.

The first stage is a fitted `VAE`, by `tc_elbo` most often, whose latents c are few and kept apart at the
price of blurred rows.  It stays as it is.  The second stage sees what is left of a row once the first
stage's y is taken away, makes a latent vector z of it, and decodes from both (Srivastava et al., 2020):

    c ~ N(0, I)    z ~ N(0, I)    y = E[x | c] of the first stage    x ~ p(x | y, z)
    q(c | x) of the first stage   q(z | x - y)

c goes first, so what its metrics say of the first stage holds for both.  The bound of this pair is that
of log p(x) as of any other; the divergence of c in it is a constant, since nothing of c is learnt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.models.vae import VAE, check_sizes
from pyrolatent.nn import Network, Rows, decoder_of, encoder_of, expected, observed, seen_in
from pyrolatent.pair import Fitted, FittedPair, Model, Pair
from pyrolatent.schema import Schema


@final
@dataclass(frozen=True, eq=False)
class MultiStageVAE(Pair):
    """A second stage over the rows of a fitted `VAE`.

    Latent sites `c (N, L1)` and `z (N, L)`, observed site `x` as that of the first stage.

    Args:
        first: The fit of the first stage, with one refit.
        latent_dim: L, the dimension of z, at most that of c; by default that.
        hidden: Features of each dense hidden layer of the decoder; the encoder has them in reverse.

    Raises:
        ModelError: The first stage is no `VAE`, or was fitted several times.
        ArgumentError: A size is not positive, or z has more dimensions than c.
    """

    first: Fitted = field(repr=False)
    latent_dim: int | None = None
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        check_first(self.first)
        object.__setattr__(self, "first", FittedPair(self.first.pair, self.first.params))
        if self.latent_dim is None:
            object.__setattr__(self, "latent_dim", self.stage.latent_dim)
        check_sizes(self.num_latents, self.hidden)
        if self.num_latents > self.stage.latent_dim:
            why = f"z has {self.latent_dim}, c {self.stage.latent_dim}"
            remedy = "choose at most as many, so that the second stage adds details and not another model"
            raise ArgumentError("z has more dimensions than c", why=why, remedy=remedy)

    @property
    def stage(self) -> VAE:
        """The pair of the first stage."""
        assert isinstance(self.first.pair, VAE)
        return self.first.pair

    @property
    def num_latents(self) -> int:
        """The dimension of z."""
        assert self.latent_dim is not None
        return self.latent_dim

    @property
    def rows(self) -> Rows:
        """What the rows are, as in the first stage."""
        return self.stage.rows

    @property
    def schema(self) -> Schema | None:
        return self.stage.schema

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> Model:
        return self.infer

    @property
    def stands_on(self) -> Mapping[str, Fitted]:
        return {"first": self.first}

    @cached_property
    def decoding(self) -> Network:
        tails = self.stage.heavy_tails
        return Network("second.decoder", decoder_of(self.rows, self.hidden, self.num_latents, tails, True))

    @cached_property
    def encoding(self) -> Network:
        return Network("second.encoder", encoder_of(self.rows, self.hidden[::-1], self.num_latents))

    def generate(self, x: Tensor, mask: Tensor | None = None) -> None:
        """The generative program for rows `x`, observed where `mask`, of its shape, is True."""
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(torch.zeros(self.stage.latent_dim), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(torch.zeros(self.num_latents), 1.0).to_event(1))
            cells = self.decoding(z, self.first_rows(c))
            pyro.sample("x", observed(self.rows, cells, seen_in(self.rows, x, mask)), obs=x)

    def infer(self, x: Tensor, mask: Tensor | None = None) -> None:
        """The guide: q(c | observed cells) of the first stage, q(z | what it leaves of them)."""
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", self.first_latents(x, mask))
            pyro.sample("z", self.details(x, mask, minus=self.first_rows(c)))

    def first_latents(self, x: Tensor, mask: Tensor | None = None) -> dist.TorchDistribution:
        """Return q(c | observed cells) `(N,)` of the first stage."""
        return self.stage.encoding.at(self.first.params, x, seen_in(self.rows, x, mask))

    def details(self, x: Tensor, mask: Tensor | None = None, *, minus: Tensor) -> dist.TorchDistribution:
        """Return q(z | x - minus) `(N,)`; `minus` is as `first_rows` returns it."""
        return self.encoding(x, seen_in(self.rows, x, mask), minus)

    def first_rows(self, c: Tensor) -> Tensor:
        """Return y, what the first stage expects of rows with latents `c (N, L1)`."""
        return expected(self.rows, self.stage.decoding.at(self.first.params, c))


def check_first(first: Fitted) -> None:
    """Refuse what cannot be a first stage.

    Raises:
        ModelError: With what it is.
    """
    pair = getattr(first, "pair", None)
    if not isinstance(pair, VAE):
        why = f"got {type(first).__name__} of {type(pair).__name__}"
        remedy = "pass first=fit(VAE(...), data, SVI(tc_elbo(beta)))"
        raise ModelError("the first stage is no fitted VAE", why=why, remedy=remedy)
    raw = first.params["encoder.head.location.bias"]
    if raw.shape != (pair.latent_dim,):
        why = f"{len(raw)} of them"
        raise ModelError("the first stage was fitted several times", why=why, remedy="use num_refits=1")
