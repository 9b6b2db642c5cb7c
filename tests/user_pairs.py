"""Pyro models with guides as a user writes them, with their data: what a method that learns is given.

Each entry of `PAIRS` makes a fresh model, its guide and its data.  None of them knows this package.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.nn.functional import softplus


class UserPair(NamedTuple):
    """A model, its guide (a class of autoguides or a function) and their arguments."""

    model: Callable[..., Any]
    guide: Any
    data: dict[str, Any]


def regression(x: Tensor, y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, noise), obs=y)


def regression_data(num_rows: int = 40) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 3, generator=random, dtype=torch.float64)
    noise = torch.randn(num_rows, generator=random, dtype=torch.float64)
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.5 * noise}


def hand_written(x: Tensor, y: Tensor) -> None:
    """A guide with constrained parameters."""
    location = pyro.param("location", torch.zeros(x.shape[1]))
    tril = pyro.param("tril", 0.2 * torch.eye(x.shape[1]), constraint=constraints.lower_cholesky)
    pyro.sample("weights", dist.MultivariateNormal(location, scale_tril=tril))
    centre = pyro.param("centre", torch.tensor(0.6), constraint=constraints.positive)
    spread = pyro.param("spread", torch.tensor(0.3), constraint=constraints.interval(0.05, 1.0))
    pyro.sample("noise", dist.LogNormal(centre.log(), spread))


class Encoder(nn.Module):
    def __init__(self, num_columns: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_columns, hidden)
        self.location, self.log_scale = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.hidden(x))
        return self.location(hidden), (0.5 * self.log_scale(hidden)).exp()


class Decoder(nn.Module):
    def __init__(self, latent: int, hidden: int, num_columns: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent, hidden)
        self.location, self.log_scale = nn.Linear(hidden, num_columns), nn.Linear(hidden, num_columns)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.hidden(z))
        return self.location(hidden), (0.5 * self.log_scale(hidden)).exp()


class VAE(nn.Module):
    """As in Pyro's tutorial: networks as submodules, registered by `pyro.module` in model and guide."""

    def __init__(self, num_columns: int = 5, hidden: int = 8, latent: int = 2) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = Encoder(num_columns, hidden, latent)
        self.decoder = Decoder(latent, hidden, num_columns)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            location, scale = self.decoder(z)
            pyro.sample("x", dist.Normal(location, scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            location, scale = self.encoder(x)
            pyro.sample("z", dist.Normal(location, scale).to_event(1))


def vae_data(num_rows: int = 48, num_columns: int = 5) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    factors = torch.randn(num_rows, 2, generator=random)
    loadings = torch.randn(2, num_columns, generator=random)
    return {"x": factors @ loadings + 0.3 * torch.randn(num_rows, num_columns, generator=random)}


def vae() -> UserPair:
    torch.manual_seed(2)
    networks = VAE()
    return UserPair(networks.model, networks.guide, vae_data())


class Recurrent(PyroModule):
    """A PyroModule with a recurrent network, a constrained parameter and a prior on a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = PyroModule[nn.LSTM](1, 3, batch_first=True)
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)
        self.out = PyroModule[nn.Linear](3, 1)
        self.out.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

    def forward(self, series: Tensor) -> None:
        hidden, _ = self.cell(series[:, :-1, None])
        prediction = self.out(hidden)[..., 0]
        with pyro.plate("data", len(series)):
            pyro.sample("next", dist.Normal(prediction, self.noise).to_event(1), obs=series[:, 1:])


def recurrent() -> UserPair:
    torch.manual_seed(3)
    series = torch.randn(6, 5, generator=torch.Generator().manual_seed(4)).cumsum(1)
    return UserPair(Recurrent(), AutoNormal, {"series": series})


def local_scales(y: Tensor) -> None:
    """Latents of rows beside one that all share."""
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


def closure() -> UserPair:
    """A network that a closure holds, and a scale of the decoder that is a `pyro.param` of the model."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def model(x: Tensor, y: Tensor) -> None:
        pyro.module("network", network)
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.interval(0.05, 5.0))
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.StudentT(4.0, network(x)[..., 0] + shift, softplus(scale)), obs=y)

    random = torch.Generator().manual_seed(6)
    x = torch.randn(20, 2, generator=random)
    return UserPair(model, AutoNormal, {"x": x, "y": x[:, 0] * x[:, 1]})


def local_data() -> dict[str, Any]:
    return {"y": torch.linspace(-1.0, 2.0, 9, dtype=torch.float64)}


def gamma_and_normal() -> UserPair:
    """A site whose draws depend on what is learnt, before one that is drawn from base noise."""

    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    def guide(y: Tensor) -> None:
        shape = pyro.param("shape", torch.tensor(5.0), constraint=constraints.positive)
        pyro.sample("scale", dist.Gamma(shape, 5.0))
        pyro.sample("mean", dist.Normal(pyro.param("location", torch.tensor(0.0)), 0.3))

    return UserPair(model, guide, {"y": torch.linspace(-1.0, 1.0, 9)})


def dropout() -> UserPair:
    """A network that draws itself, and no latent site."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.Linear(16, 2))

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x), 1.0).to_event(1), obs=x)

    return UserPair(model, None, {"x": vae_data()["x"][:, :2]})


PAIRS: dict[str, Callable[[], UserPair]] = {
    "AutoNormal": lambda: UserPair(regression, AutoNormal, regression_data()),
    "AutoMultivariateNormal": lambda: UserPair(regression, AutoMultivariateNormal, regression_data()),
    "AutoLowRankMultivariateNormal": lambda: UserPair(
        regression, functools.partial(AutoLowRankMultivariateNormal, rank=2), regression_data()
    ),
    "AutoDelta": lambda: UserPair(regression, AutoDelta, regression_data()),
    "constrained parameters": lambda: UserPair(regression, hand_written, regression_data()),
    "VAE": vae,
    "PyroModule": recurrent,
    "closure": closure,
    "latents of rows": lambda: UserPair(local_scales, AutoNormal, local_data()),
}
