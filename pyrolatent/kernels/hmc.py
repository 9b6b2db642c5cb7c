"""Hamiltonian Monte Carlo with many chains in lockstep (Neal 2011).

State, info, start, kernel, in this order.  All chains share the step size, the number of steps and
the metric; each is accepted or rejected on its own, and a chain that fails fails alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyrolatent.kernels.leapfrog import Density, Step, trajectory, velocity

DIVERGENCE = 1_000.0  # nats of energy error


class HMCState(NamedTuple):
    """Where the chains are: position `(B, D)`, log density `(B,)` and its gradient `(B, D)`."""

    position: Tensor
    log_density: Tensor
    gradient: Tensor


class HMCInfo(NamedTuple):
    """What happened in one transition, `(B,)` each: energies in nats.

    And where the trajectories ended, before acceptance had its say: position and momentum `(B, D)`.
    """

    acceptance_rate: Tensor
    diverging: Tensor
    energy: Tensor
    proposal: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class Metric:
    """The covariance of the target as the sampler takes it to be, `(D, D)` or its diagonal `(D,)`."""

    covariance: Tensor
    factor: Tensor  # Cholesky factor of the covariance, or standard deviations

    def momentum(self, noise: Tensor) -> Tensor:
        """Return momenta `(B, D)` ~ N(0, covariance^-1) from standard normal `noise (B, D)`."""
        if self.covariance.ndim == 1:
            return noise / self.factor
        return torch.linalg.solve_triangular(self.factor, noise, upper=False, left=False)

    def whitened(self, position: Tensor) -> Tensor:
        """Return positions `(B, D)` in coordinates where this covariance is the identity."""
        if self.covariance.ndim == 1:
            return position / self.factor
        return torch.linalg.solve_triangular(self.factor, position.mT, upper=False).mT

    def whitened_velocity(self, momentum: Tensor) -> Tensor:
        """Return how fast `whitened` positions change under momenta `(B, D)`."""
        return momentum @ self.factor if self.covariance.ndim == 2 else momentum * self.factor

    def kinetic_energy(self, momentum: Tensor) -> Tensor:
        """Return `momentum' covariance momentum / 2` `(B,)`."""
        return 0.5 * (momentum * velocity(momentum, self.covariance)).sum(-1)


def metric(covariance: Tensor) -> Metric:
    """Return the metric of a covariance `(D, D)`, or of variances `(D,)`."""
    factor = covariance.sqrt() if covariance.ndim == 1 else torch.linalg.cholesky(covariance)
    return Metric(covariance, factor)


def start(density: Density, position: Tensor) -> HMCState:
    """Return the state of chains at `position (B, D)`."""
    return HMCState(position, *density(position))


def transition(
    step: Step,
    state: HMCState,
    metric: Metric,
    step_size: Tensor,
    num_steps: int,
    noise: Tensor,
    uniform: Tensor,
) -> tuple[HMCState, HMCInfo]:
    """Move every chain once, given standard normal `noise (B, D)` and `uniform (B,)`."""
    momentum = metric.momentum(noise)
    energy = 0.5 * (noise**2).sum(-1) - state.log_density
    position, momentum, log_density, gradient = trajectory(
        step, state.position, state.gradient, momentum, step_size, metric.covariance, num_steps
    )
    new_energy = metric.kinetic_energy(momentum) - log_density
    error = torch.nan_to_num(new_energy - energy, nan=torch.inf)
    acceptance_rate = torch.exp(-error.clamp(min=0))
    accepted = uniform < acceptance_rate
    state = HMCState(
        torch.where(accepted[:, None], position, state.position),
        torch.where(accepted, log_density, state.log_density),
        torch.where(accepted[:, None], gradient, state.gradient),
    )
    energy = torch.where(accepted, new_energy, energy)
    return state, HMCInfo(acceptance_rate, error > DIVERGENCE, energy, position, momentum)
