"""Path lengths learnt by ChEES, the change in the estimator of the expected square.

Hoffman, Radul and Sountsov (2021), An adaptive-MCMC scheme for setting trajectory lengths in
Hamiltonian Monte Carlo, AISTATS.  Paths T that are best for the criterion

    ChEES(T) = E[(|x_T - E x|^2 - |x_0 - E x|^2)^2] / 4

turn large squared distances from the centre into small ones, and are not fooled by x_T = -x_0 as
the expected squared jump is.  On a normal with standard deviations s_d, ChEES(T) is the sum of
s_d^4 sin(T / s_d)^2: the widest direction decides.  Lower peaks follow the first one, which the path
rule is near: the ascent begins there, or below.

Positions and velocities are taken as the metric whitens them.  There a direction is wide because
it is slow, in the user's coordinates also because of its unit, which the path has no say in.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrolatent.kernels.hmc import HMCInfo, HMCState, Metric

RATE = 0.025  # of the log path, as the next: the constants of the authors' implementation
DECAY = 0.95  # of the average squared gradient


@dataclass(frozen=True)
class PathAscent:
    """Stochastic gradient ascent of the log path by Adam, without momentum; tensors are `()`."""

    log_path: Tensor
    square: Tensor  # running average of squared gradients
    log_average: Tensor
    count: int = 0

    def update(self, before: HMCState, info: HMCInfo, metric: Metric, time: Tensor) -> "PathAscent":
        """Return the state after a transition from `before`.

        `time` is what trajectories lasted, steps times their size, `()` or `(B,)` for each chain.
        """
        count = self.count + 1
        gradient = chees_gradient(before.position, info, metric, time)
        square = DECAY * self.square + (1 - DECAY) * gradient**2
        size = (square / (1 - DECAY**count)).sqrt()
        # No chain moved: no gradient, and a ratio of zeros.
        log_path = self.log_path + RATE * torch.nan_to_num(gradient / size)
        weight = 1 / math.sqrt(count)
        return PathAscent(log_path, square, torch.lerp(self.log_average, log_path, weight), count)

    @property
    def path(self) -> Tensor:
        """The mean path for the next transition of the warm-up."""
        return self.log_path.exp()

    @property
    def average_path(self) -> Tensor:
        """The mean path to keep."""
        return self.log_average.exp()


def path_ascent(path: Tensor) -> PathAscent:
    """Return the state before the first transition."""
    return PathAscent(path.log(), torch.zeros_like(path), path.log())


def chees_gradient(position: Tensor, info: HMCInfo, metric: Metric, time: Tensor) -> Tensor:
    """Return the derivative `()` of ChEES by the log path, estimated from all chains.

    A chain that moved from x to x' with velocity v' there, for `time` t = h T where h is the jitter,
    contributes t (|x' - E x|^2 - |x - E x|^2) (x' - E x)'v', by weight of its acceptance rate;
    means over chains stand for E x.  Chains whose proposal is not finite count
    for nothing.
    """
    counts = info.proposal.isfinite().all(-1) & info.momentum.isfinite().all(-1)
    weight = torch.where(counts, info.acceptance_rate, 0.0)
    weight = (weight / weight.sum()).nan_to_num()
    before = metric.whitened(position)
    after = torch.where(counts[:, None], metric.whitened(info.proposal), 0.0)
    velocity = torch.where(counts[:, None], metric.whitened_velocity(info.momentum), 0.0)
    before = before - before.mean(0)
    after = after - weight @ after
    change = (after**2).sum(-1) - (before**2).sum(-1)
    return weight @ (time * change * (after * velocity).sum(-1))
