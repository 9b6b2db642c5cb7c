"""From the cells of rows, and which of them are observed, to distributions of their latent vectors."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pyrolatent.column import Column
from pyrolatent.nn.network import mlp
from pyrolatent.univariate import cell_moments

LOG_VARIANCE_LIMIT = 20.0


@final
class NormalHead(nn.Module):
    """From features to a normal latent vector, its cells independent.

    All variances begin at 1: those of rows with a cell far out would be astronomic otherwise.
    """

    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.location, self.log_variance = (nn.Linear(num_features, latent_dim) for _ in range(2))
        for weights in self.log_variance.parameters():
            nn.init.zeros_(weights)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Return the distribution `(..., N)` of vectors `(L,)` from `features (..., N, F)`."""
        log_variance = self.log_variance(features).clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        return dist.Normal(self.location(features), (0.5 * log_variance).exp()).to_event(1)


@final
class RowEncoder(nn.Module):
    """From the cells of rows and which of them are observed to the latent vectors of the rows."""

    def __init__(self, columns: Sequence[Column], hidden: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.levels = levels_of(columns)
        width = sum(self.levels) + len(columns)
        self.body = mlp([width, *hidden])
        self.head = NormalHead(hidden[-1] if hidden else width, latent_dim)

    def forward(self, x: Tensor, mask: Tensor, minus: Tensor | None = None) -> dist.TorchDistribution:
        """Return the distribution `(..., N)` of latent vectors `(L,)` of `x (N, D)`, observed at `mask`.

        Features `minus (..., N, F)` are taken away from those of the cells.
        """
        seen = mask.to(x)
        cells = features(x, seen, self.levels, minus)
        return self.head(self.body(torch.cat([cells, seen.expand(*cells.shape[:-1], -1)], -1)))


def levels_of(columns: Sequence[Column]) -> list[int]:
    """Return how many features the cells of each column are: an indicator for each of several labels."""
    many = [len(column.categories) if column.kind == "categorical" else 0 for column in columns]
    return [number if number > 2 else 1 for number in many]


def num_features(columns: Sequence[Column]) -> int:
    """Return how many features a row has."""
    return sum(levels_of(columns))


def features(x: Tensor, seen: Tensor, levels: Sequence[int], minus: Tensor | None = None) -> Tensor:
    """Return the cells of rows as features `(..., N, F)`, 0 where they are missing."""
    if max(levels) == 1:
        return (x if minus is None else x - minus) * seen
    parts = [
        (x[..., d, None] == torch.arange(number).to(x)).to(x) if number > 1 else x[..., d, None]
        for d, number in enumerate(levels)
    ]
    cells = torch.cat(parts, -1)
    repeats = torch.cat([seen[..., d, None].expand(p.shape) for d, p in enumerate(parts)], -1)
    return (cells if minus is None else cells - minus) * repeats


def expected_features(columns: Sequence[Column], cells: Mapping[tuple[Hashable, ...], Any]) -> Tensor:
    """Return the means `(..., N, F)` of features, given the distributions that a decoder returned."""
    found: dict[Hashable, Tensor] = {}
    for names, block in cells.items():
        labels = isinstance(block, dist.Categorical)
        means = block.probs if labels else cell_moments(block)[0][..., None]
        found |= {name: means[..., k, :] for k, name in enumerate(names)}
    return torch.cat([found[column.name] for column in columns], -1)


@final
class EmbeddingEncoder(nn.Module):
    """The encoder of the essay "Heuristics in Latent Space" (N. Forde, 2025) for rows with holes.

    A missing cell is filled with a number that is learnt for its column; what the mask says goes through
    two layers of its own and is added.
    """

    def __init__(self, columns: Sequence[Column], hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.filling = nn.Parameter(torch.zeros(len(columns)))
        self.of_cells = nn.Linear(len(columns), hidden)
        self.of_mask = nn.Sequential(nn.Linear(len(columns), hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.head = NormalHead(hidden, latent_dim)

    def forward(self, x: Tensor, mask: Tensor) -> dist.TorchDistribution:
        """Return the distribution `(N,)` of latent vectors `(L,)` of `x (N, D)`, observed at `mask`."""
        filled = torch.where(mask, x, self.filling)
        return self.head(silu(self.of_cells(filled)) + self.of_mask(mask.to(x)))
