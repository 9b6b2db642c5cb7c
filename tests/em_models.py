"""Models with discrete sites, as users write them, for tests of EM, each with the data it was drawn from."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from pyrolatent.columnwise import ColumnwiseDistribution

Data = dict[str, Any]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(number: int) -> Tensor:
    return pyro.sample("shares", dist.Dirichlet(torch.ones(number)))


def normal(x: Tensor, number: int = 2) -> None:
    weights = shares(number)
    with pyro.plate("component", number):
        location = pyro.sample("location", dist.Normal(0.0, 10.0))
        spread = pyro.sample("spread", dist.HalfNormal(10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(location[z], spread[z]), obs=x)


def normal_data(rows: int = 300) -> Data:
    noise = torch.randn(rows, generator=generator(), dtype=torch.float64)
    return {"x": torch.where(torch.arange(rows) % 5 < 2, 3.0 + 0.6 * noise, noise)}


def one_spread(x: Tensor) -> None:
    """Locations of their own, one spread, and a location that is given."""
    weights = shares(3)
    low, high = pyro.sample("low", dist.Normal(0.0, 10.0)), pyro.sample("high", dist.Normal(0.0, 10.0))
    spread = pyro.sample("spread", dist.HalfNormal(10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(torch.stack([low, torch.tensor(1.5), high])[z], spread), obs=x)


def counts(x: Tensor) -> None:
    weights, rate = shares(2), pyro.sample("rate", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Poisson(rate[z]), obs=x)


def counts_data() -> Data:
    rates = torch.where(torch.arange(200) % 3 == 0, 7.0, 2.0).double()
    return {"x": torch.poisson(rates, generator=generator())}


def waits(x: Tensor) -> None:
    weights, rate = shares(2), pyro.sample("rate", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Exponential(rate[z]), obs=x)


def waits_data() -> Data:
    uniform = torch.rand(400, generator=generator(), dtype=torch.float64)
    return {"x": -uniform.log() * torch.where(torch.arange(400) % 2 == 0, 0.2, 5.0)}


def incomes(x: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(1.0, 1.0))
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(share)).long()
        pyro.sample("x", dist.LogNormal(location[z], spread[z]), obs=x)


def incomes_data() -> Data:
    return {"x": normal_data()["x"].exp()}


def answers(x: Tensor, mask: Tensor) -> None:
    """Classes of binary answers, some of them missing, and one answer of three labels."""
    weights = shares(2)
    yes = pyro.sample("yes", dist.Beta(torch.ones(2, 3), 1.0).to_event(2))
    label = pyro.sample("label", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        cells = {("a", "b", "c"): dist.Bernoulli(yes[z]), "d": dist.Categorical(label[z])}
        pyro.sample("x", ColumnwiseDistribution(cells, mask), obs=x)


def answers_data() -> Data:
    random, rows = generator(), 250
    z = (torch.arange(rows) % 2)[:, None]
    yes = (torch.rand(rows, 3, generator=random, dtype=torch.float64) < 0.2 + 0.6 * z).double()
    label = torch.multinomial(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])[z[:, 0]], 1, generator=random)
    mask = torch.rand(rows, 4, generator=random) < 0.8
    return {"x": torch.where(mask, torch.cat([yes, label], 1), 0.0), "mask": mask}


def two_sites(x: Tensor) -> None:
    """Two discrete sites in each row, on which cells depend differently."""
    first, second = shares(2), pyro.sample("second", dist.Dirichlet(torch.ones(3)))
    location = pyro.sample("location", dist.Normal(torch.zeros(2, 3), 10.0).to_event(2))
    spread = pyro.sample("spread", dist.HalfNormal(5.0 * torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Categorical(first))
        b = pyro.sample("b", dist.Categorical(second))
        pyro.sample("x", dist.Normal(Vindex(location)[a, b], spread[a]), obs=x)


def two_sites_data() -> Data:
    noise = torch.randn(300, generator=generator(), dtype=torch.float64)
    return {"x": 4.0 * (torch.arange(300) % 5) + noise}


def labelled(x: Tensor, label: Tensor, known: Tensor) -> None:
    """Some rows tell their label."""
    weights = shares(2)
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(5.0 * torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("label", dist.Categorical(torch.eye(2)[z]).mask(known), obs=label)
        pyro.sample("x", dist.Normal(location[z], spread[z]), obs=x)


def masked_labels(x: Tensor, label: Tensor, known: Tensor) -> None:
    """The same as Pyro's users write it."""
    weights = shares(2)
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(5.0 * torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), obs=label, obs_mask=known)
        pyro.sample("x", dist.Normal(Vindex(location)[z], Vindex(spread)[z]), obs=x)


def labelled_data() -> Data:
    data = normal_data()
    known = torch.rand(len(data["x"]), generator=generator(1)) < 0.4
    return {**data, "label": (torch.arange(len(data["x"])) % 5 < 2).long(), "known": known}


def log_spreads(x: Tensor) -> None:
    """The scale is a function of a latent and no copy, so that latent has no formula."""
    weights = shares(2)
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    log_spread = pyro.sample("log_spread", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(location[z], log_spread[z].exp()), obs=x)


def heavy_tails(x: Tensor) -> None:
    weights = shares(2)
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(5.0 * torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.StudentT(4.0, location[z], spread[z]), obs=x)


def chain(y: Tensor) -> None:
    """A hidden Markov model."""
    moves = pyro.sample("moves", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(5.0))
    z: Any = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(Vindex(moves)[z] if t else torch.ones(2) / 2))
        pyro.sample(f"y_{t}", dist.Normal(location[z], spread), obs=y[t])


def chain_data() -> Data:
    noise = torch.randn(8, generator=generator(), dtype=torch.float64)
    return {"y": 3.0 * torch.tensor([0, 0, 0, 1, 1, 0, 0, 1]) + 0.5 * noise}


def part_of_a_simplex(x: Tensor) -> None:
    """A formula for one cell would leave the others behind."""
    weights = shares(2)
    location = pyro.sample("location", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(weights[1])).long()
        pyro.sample("x", dist.Normal(location[z], 1.0), obs=x)


def complete(x: Tensor) -> None:
    """No discrete site at all."""
    location, spread = (
        pyro.sample("location", dist.Normal(0.0, 10.0)),
        pyro.sample("spread", dist.HalfNormal(5.0)),
    )
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(location, spread), obs=x)


def prices(x: Tensor) -> None:
    """The first example of S. Li's article: a sum of two normal parts, of which neither is seen."""
    mu, sigma = pyro.sample("mu", dist.Normal(0.0, 10.0)), pyro.sample("sigma", dist.HalfNormal(5.0))
    nu, tau = pyro.sample("nu", dist.Normal(0.0, 10.0)), pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(nu, tau))
        pyro.sample("x", dist.Normal(mu + z, sigma), obs=x)


def prices_data() -> Data:
    return {"x": torch.tensor([5.0, 6.0, 7.0])}


MIXTURES = {
    "normal": (normal, normal_data),
    "one spread": (one_spread, normal_data),
    "counts": (counts, counts_data),
    "waits": (waits, waits_data),
    "incomes": (incomes, incomes_data),
    "answers": (answers, answers_data),
    "two sites": (two_sites, two_sites_data),
    "labelled": (labelled, labelled_data),
    "complete": (complete, normal_data),
}
OTHERS = {
    "masked labels": (masked_labels, labelled_data),
    "log spreads": (log_spreads, normal_data),
    "heavy tails": (heavy_tails, normal_data),
    "chain": (chain, chain_data),
    "part of a simplex": (part_of_a_simplex, normal_data),
}
