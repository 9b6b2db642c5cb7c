"""Where chains begin: a point of finite density, then a short descent."""

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.sites import START_RADIUS
from pyrolatent.errors import ModelError

ATTEMPTS = 100
DESCENT_STEPS = 60
DESCENT_RATE = 0.1


def starting_points(
    density: LogDensity, num_chains: int, superchain_size: int, random: torch.Generator
) -> Tensor:
    """Return points of finite density `(num_chains, D)`, one for each superchain.

    Raises:
        ModelError: No finite density in 100 attempts; lists each site's log-probability.
    """
    position = uniform(density, num_chains // superchain_size, random)
    for _ in range(ATTEMPTS):
        value, gradient = density.batched(position.repeat_interleave(superchain_size, 0))
        finite = (value.isfinite() & gradient.isfinite().all(-1))[::superchain_size]
        if finite.all():
            return position.repeat_interleave(superchain_size, 0)
        position = torch.where(finite[:, None], position, uniform(density, len(position), random))
    raise ModelError(
        "the density of the model is not finite at the start",
        where=f"{ATTEMPTS} random starts",
        why=f"log-probabilities at the last: {listed(density, position[~finite][0])}{missing_values(density)}",
        remedy="look at the sites that are not finite: their data, their scale, their support",
    )


def uniform(density: LogDensity, num_points: int, random: torch.Generator) -> Tensor:
    """Return random points `(num_points, D)`."""
    shape = (num_points, density.dim)
    unit = torch.rand(shape, generator=random, dtype=density.dtype, device=density.device)
    return START_RADIUS * (2 * unit - 1)


def listed(density: LogDensity, position: Tensor) -> str:
    """Return each site's log-probability in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in density.log_prob_of_sites(position).items())


def missing_values(density: LogDensity) -> str:
    """Return how many NaN each entry of the data holds, in words."""
    counts = {
        name: int(value.isnan().sum())
        for name, value in density.data.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.isnan().any()
    }
    return f"; the data hold NaN: {counts}" if counts else ""


def descend(density: LogDensity, position: Tensor) -> Tensor:
    """Return the best points of a short Adam ascent of the log density from `position (B, D)`."""
    free = position.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=DESCENT_RATE, maximize=True)
    best, best_value = position, torch.full_like(position[:, 0], -torch.inf)
    for _ in range(DESCENT_STEPS):
        value, gradient = density.batched(free.detach())
        better = value > best_value
        best, best_value = (
            torch.where(better[:, None], free.detach(), best),
            torch.where(better, value, best_value),
        )
        free.grad = torch.nan_to_num(gradient)
        optimizer.step()
    return best
