"""From the cells of rows, and which of them are observed, to distributions of their latent vectors."""

from collections.abc import Sequence
from typing import final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pyrolatent.column import Column
from pyrolatent.nn.network import mlp

LOG_VARIANCE_LIMIT = 20.0


@final
class NormalHead(nn.Module):
    """From features to a normal latent vector, its cells independent."""

    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.location, self.log_variance = (nn.Linear(num_features, latent_dim) for _ in range(2))

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Return the distribution `(..., N)` of vectors `(L,)` from `features (..., N, F)`."""
        log_variance = self.log_variance(features).clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        return dist.Normal(self.location(features), (0.5 * log_variance).exp()).to_event(1)


@final
class RowEncoder(nn.Module):
    """From the cells of rows and which of them are observed to the latent vectors of the rows.

    Labels of more than two levels enter as one indicator each.
    """

    def __init__(self, columns: Sequence[Column], hidden: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.levels = [len(column.categories) if column.kind == "categorical" else 1 for column in columns]
        width = sum(self.levels) + len(columns)
        self.body = mlp([width, *hidden])
        self.head = NormalHead(hidden[-1] if hidden else width, latent_dim)

    def forward(self, x: Tensor, mask: Tensor) -> dist.TorchDistribution:
        """Return the distribution `(N,)` of latent vectors `(L,)` of `x (N, D)`, observed at `mask`."""
        seen = mask.to(x)
        cells = x * seen
        if any(number > 1 for number in self.levels):
            cells = torch.cat(
                [
                    (x[..., d, None] == torch.arange(number).to(x)) * seen[..., d, None]
                    if number > 1
                    else cells[..., d, None]
                    for d, number in enumerate(self.levels)
                ],
                -1,
            )
        return self.head(self.body(torch.cat([cells, seen], -1)))


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
