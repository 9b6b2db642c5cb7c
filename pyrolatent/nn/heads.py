"""From features of rows to distributions of their cells: a head for each kind of column.

| kind | distribution of a cell |
|---|---|
| real, positive (its log), unit interval (its log-odds) | normal, or Student's t |
| count | negative binomial |
| binary | Bernoulli |
| categorical | categorical |
| ordinal | ordered logistic: a number, and thresholds between the levels |

Locations and log-odds come from the network.  Scales, dispersions, degrees of freedom and thresholds are
parameters of the columns: a network for the scale of each cell as well could explain a cell by itself.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid, softplus

from pyrolatent.column import Column
from pyrolatent.counts import LargeCounts
from pyrolatent.encoded import Encoded
from pyrolatent.nn.network import mlp

SCALE_FLOOR = 0.05  # of a standardised column: without one the density of a few rows may grow without bound
LEAST_FREEDOM = 2.0  # degrees of freedom of Student's t, for a finite variance
MAX_LOG_MEAN = 20.0  # of a count
ONE = math.log(math.e - 1)  # softplus of it is 1
NUMBERS = ("real", "positive", "unit")

Group = tuple[str, int]  # kind, number of levels


@final
class NumberHead(nn.Module):
    """Normal cells, or Student's t with `heavy_tails`."""

    def __init__(self, num_features: int, columns: Sequence[Column], heavy_tails: bool = False) -> None:
        super().__init__()
        self.location = nn.Linear(num_features, len(columns))
        self.raw_scale = nn.Parameter(torch.full((len(columns),), ONE))
        self.raw_freedom = nn.Parameter(torch.full((len(columns),), 10.0)) if heavy_tails else None

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution of encoded cells `(..., N, d)` from `features (..., N, F)`."""
        location, scale = self.location(features), SCALE_FLOOR + softplus(self.raw_scale)
        if self.raw_freedom is None:
            return dist.Normal(location, scale)
        return dist.StudentT(LEAST_FREEDOM + softplus(self.raw_freedom), location, scale)


@final
class CountHead(nn.Module):
    """Negative binomial counts."""

    def __init__(self, num_features: int, columns: Sequence[Column]) -> None:
        super().__init__()
        self.log_mean = nn.Linear(num_features, len(columns))
        self.raw_dispersion = nn.Parameter(torch.full((len(columns),), ONE))
        self.location, self.scale = [c.location for c in columns], [c.scale for c in columns]

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution of encoded cells `(..., N, d)` from `features (..., N, F)`."""
        location, scale = features.new_tensor(self.location), features.new_tensor(self.scale)
        centre = location.clamp(min=1.0).log()
        log_mean = (centre + self.log_mean(features)).clamp(max=MAX_LOG_MEAN)
        number = softplus(self.raw_dispersion)
        return Encoded(LargeCounts(number, logits=log_mean - number.log()), location, scale)


@final
class LabelHead(nn.Module):
    """Categorical labels, Bernoulli where there are two."""

    def __init__(self, num_features: int, columns: Sequence[Column], levels: int) -> None:
        super().__init__()
        self.shape = (len(columns), levels)
        self.logits = nn.Linear(num_features, len(columns) * (levels if levels > 2 else 1))

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution of codes `(..., N, d)` from `features (..., N, F)`."""
        logits = self.logits(features)
        if self.shape[1] == 2:
            return dist.Bernoulli(logits=logits)
        return dist.Categorical(logits=logits.unflatten(-1, self.shape))


@final
class OrdinalHead(nn.Module):
    """Ordered levels: level k where a logistic number lies between thresholds k and k + 1."""

    def __init__(self, num_features: int, columns: Sequence[Column], levels: int) -> None:
        super().__init__()
        self.location = nn.Linear(num_features, len(columns))
        even = torch.linspace(0, 1, levels + 1)[1:-1].logit()
        gaps = torch.cat([even[:1], even.diff().expm1().log()])  # softplus undone
        self.raw_thresholds = nn.Parameter(gaps.repeat(len(columns), 1))
        self.first = [column.location - column.lower for column in columns]
        self.scale = [column.scale for column in columns]

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution of encoded cells `(..., N, d)` from `features (..., N, F)`."""
        first, gaps = self.raw_thresholds[:, :1], softplus(self.raw_thresholds[:, 1:])
        thresholds = torch.cat([first, first + gaps.cumsum(-1)], -1)
        numbers = dist.Categorical(logits=between(thresholds - self.location(features)[..., None]))
        return Encoded(numbers, features.new_tensor(self.first), features.new_tensor(self.scale))


def between(edges: Tensor) -> Tensor:
    """Return log-probabilities `(..., K)` of a logistic number between neighbours of `edges (..., K - 1)`.

    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
    """
    gap = torch.log(-torch.expm1(edges[..., :-1] - edges[..., 1:]))
    inner = logsigmoid(edges[..., 1:]) + logsigmoid(-edges[..., :-1]) + gap
    return torch.cat([logsigmoid(edges[..., :1]), inner, logsigmoid(-edges[..., -1:])], -1)


@final
class RowDecoder(nn.Module):
    """From latent vectors to the distributions of the cells of their rows.

    The heads see the latent vector itself beside the features made of it, so that what is linear need not
    be learnt by the hidden layers.
    """

    def __init__(
        self, columns: Sequence[Column], hidden: Sequence[int], latent_dim: int, heavy_tails: bool = False
    ) -> None:
        super().__init__()
        self.body = mlp([latent_dim, *hidden])
        groups = grouped(columns)
        width = latent_dim + (hidden[-1] if hidden else 0)
        self.names = [tuple(column.name for column in group) for group in groups.values()]
        self.heads = nn.ModuleList(head(g, width, group, heavy_tails) for g, group in groups.items())

    def forward(self, z: Tensor, given: Tensor | None = None) -> Mapping[tuple[Hashable, ...], Distribution]:
        """Return columns -> distribution of their cells `(..., N, d)`, from `z (..., N, L)`.

        Features of the rows that are `given (..., N, F)` enter beside the latent vector.
        """
        z = z if given is None else torch.cat([given, z], -1)
        features = torch.cat([z, self.body(z)], -1) if len(self.body) else z
        return {names: head(features) for names, head in zip(self.names, self.heads, strict=True)}


def grouped(columns: Sequence[Column]) -> dict[Group, list[Column]]:
    """Return the columns by kind and number of levels."""
    groups: dict[Group, list[Column]] = {}
    for column in columns:
        kind = "number" if column.kind in NUMBERS else column.kind
        groups.setdefault((kind, num_levels(column)), []).append(column)
    return groups


def num_levels(column: Column) -> int:
    """Return the number of levels of labels and ranks, 0 for other columns."""
    if column.kind in ("binary", "categorical"):
        return len(column.categories)
    return round(column.upper - column.lower) + 1 if column.kind == "ordinal" else 0


def head(group: Group, num_features: int, columns: Sequence[Column], heavy_tails: bool) -> nn.Module:
    """Return a new head for columns of one kind."""
    kind, levels = group
    if kind == "number":
        return NumberHead(num_features, columns, heavy_tails)
    if kind == "count":
        return CountHead(num_features, columns)
    return (OrdinalHead if kind == "ordinal" else LabelHead)(num_features, columns, levels)
