"""A captured density at any number of points, of which so many at a time run as one graph."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.compile import Graph
from pyrolatent.capture.density import LogDensity
from pyrolatent.errors import ModelError
from pyrolatent.infer.speed import compiled, default_chains, how_it_ran
from pyrolatent.infer.start import ADAM_STEPS, MAX_ASCENT
from pyrolatent.kernels.adaptation import MAX_DENSE
from pyrolatent.result import Compile


@final
@dataclass(frozen=True)
class Points:
    """Log density and gradient of any number of points."""

    density: LogDensity
    batch: int
    graph: Graph | None  # of `batch` points, where all run in one

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density `(P,)` in nats and its gradient at `position (P, D)`."""
        if self.graph is None:
            return self.density.batched(position)
        number = len(position)
        padded = torch.cat([position, position[:1].expand(-number % self.batch, -1)])
        values, gradients = zip(*(self.graph(some) for some in padded.split(self.batch)), strict=True)
        return torch.cat(values)[:number], torch.cat(gradients)[:number]

    @property
    def info(self) -> dict[str, Any]:
        """How the density ran."""
        return how_it_ran(self.density, self.graph)


def capture_points(density: LogDensity, compile: Compile, num_points: int) -> Points:
    """Capture `density` for an ascent and `num_points` points; call inside its context.

    Raises:
        ModelError: There are too many dimensions for a normal approximation.
    """
    if density.dim > MAX_DENSE:
        raise ModelError(
            "the model has too many latent dimensions for a normal approximation",
            why=f"{density.dim:,}, and its covariance would hold their square",
            remedy=f"use pyrolatent.HMC(), or a model of at most {MAX_DENSE:,} dimensions",
        )
    batch = default_chains(density)
    return in_batches(density, batch, compile, ADAM_STEPS + MAX_ASCENT + num_points // batch)


def in_batches(density: LogDensity, batch: int, compile: Compile, planned: int) -> Points:
    """Capture `density` for `planned` evaluations of `batch` points; call inside its context."""
    if not density.batched.vectorised:
        return Points(density, batch, None)
    zeros = torch.zeros(batch, density.dim, dtype=density.dtype, device=density.device)
    return Points(density, batch, compiled(density.batched.graph(zeros), compile, planned))
