"""The leapfrog integrator, for all chains at once.

Momenta are kept half a step ahead of positions while a trajectory runs, so one step is one drift,
one gradient and one kick.  Nothing is written in place: trajectories are differentiable.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Density = Callable[[Tensor], tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def leapfrog_step(density: Density) -> Step:
    """Return the step `(position, momentum, step_size, covariance) -> (position, momentum, value, gradient)`.

    Positions and momenta are `(B, D)`, step sizes `(B, 1)` or `()`, the covariance (the inverse mass matrix)
    `(D, D)`, or `(D,)` for its diagonal.
    """

    def step(
        position: Tensor, momentum: Tensor, step_size: Tensor, covariance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        position = position + step_size * velocity(momentum, covariance)
        value, gradient = density(position)
        return position, momentum + step_size * gradient, value, gradient

    return step


def density_of(step: Step, covariance: Tensor) -> Density:
    """Return the density inside a step: a step of size zero moves nothing.

    So one captured graph serves trajectories and everything before them.
    """

    def density(position: Tensor) -> tuple[Tensor, Tensor]:
        at_rest, nowhere = torch.zeros_like(position), position.new_zeros(len(position), 1)
        _, _, value, gradient = step(position, at_rest, nowhere, covariance)
        return value, gradient

    return density


def velocity(momentum: Tensor, covariance: Tensor) -> Tensor:
    """Return `covariance @ momentum` `(B, D)` for each chain."""
    return momentum @ covariance if covariance.ndim == 2 else momentum * covariance


def trajectory(
    step: Step,
    position: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    step_size: Tensor,
    covariance: Tensor,
    num_steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow `num_steps` leapfrog steps; return position, momentum, log density and gradient."""
    momentum = momentum + 0.5 * step_size * gradient
    for _ in range(num_steps):
        position, momentum, value, gradient = step(position, momentum, step_size, covariance)
    return position, momentum - 0.5 * step_size * gradient, value, gradient
