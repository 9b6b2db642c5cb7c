"""Adaptation of Hamiltonian Monte Carlo: step size, metric and path length, pooled over chains."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrolatent.kernels.hmc import Metric
from pyrolatent.kernels.leapfrog import Density

PATH_FACTOR = 1.5
PATH_JITTER = (0.4, 1.6)
# Beyond, the metric is diagonal: Hessians and their eigenvalues cost D^3, and with the cheapest gradients
# dense took 1.8 times as long as diagonal at 1,000, at 200 two fifths to a tenth (benchmarks/metrics.py).
MAX_DENSE = 1_000  # dimensions
TINY = 1e-12  # variance of a direction in which no chain moves
MAX_STEPS = 512  # leapfrog steps in one trajectory


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes by dual averaging (Hoffman and Gelman 2014, section 3.2).

    The constants are theirs, but for the centre: twice the first step size and not ten times, since
    the metric is never far off.

    All tensors have the shape of the step size: `(B,)` for one of each chain, `()` for one of all.
    """

    centre: Tensor  # log of twice the first step size
    error: Tensor
    log_step: Tensor
    log_average: Tensor
    count: int = 0

    def update(self, acceptance_rate: Tensor, target: float) -> "DualAveraging":
        """Return the state after one transition with this acceptance rate."""
        count = self.count + 1
        weight = 1 / (count + 10)
        error = (1 - weight) * self.error + weight * (target - acceptance_rate)
        log_step = self.centre - math.sqrt(count) / 0.05 * error
        decay = count**-0.75
        log_average = decay * log_step + (1 - decay) * self.log_average
        return DualAveraging(self.centre, error, log_step, log_average, count)

    @property
    def step_size(self) -> Tensor:
        """The step size for the next transition of the warm-up."""
        return self.log_step.exp()

    @property
    def average_step_size(self) -> Tensor:
        """The step size to keep."""
        return self.log_average.exp()


def dual_averaging(step_size: Tensor) -> DualAveraging:
    """Return the state before the first transition."""
    log_step = step_size.log()
    return DualAveraging(math.log(2) + log_step, torch.zeros_like(log_step), log_step, log_step)


def pooled_covariance(draws: Tensor, previous: Tensor) -> Tensor:
    """Return the covariance `(D, D)` of `draws (S, D)`, or variances `(D,)` if `previous` is that.

    Few draws say little about correlations: by a weight of D + 5 draws they are those of the
    `previous` covariance, so that what the curvature at a mode told is not lost.
    """
    num_draws, dim = draws.shape
    centred = draws - draws.mean(0)
    variances = (centred**2).mean(0) + TINY
    if previous.ndim == 1:
        return variances
    weight = num_draws / (num_draws + dim + 5)
    scales = (variances / previous.diagonal()).sqrt()
    known = scales[:, None] * previous * scales
    return weight * (centred.T @ centred / num_draws) + (1 - weight) * known


def path_length(draws: Tensor, metric: Metric) -> float:
    """Return the mean path: 1.5 sd of the widest direction of `draws (S, D)`, in the metric's units."""
    white = metric.whitened(draws - draws.mean(0))
    gram = white.T @ white if white.shape[1] <= len(white) else white @ white.T
    return PATH_FACTOR * math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]) / len(draws))


def hessians(density: Density, points: Tensor, batch: int) -> Tensor:
    """Return the Hessian `(P, D, D)` at each of `points (P, D)`, by central differences of the gradient.

    The density is called with `batch` points at a time.
    """
    dim = points.shape[1]
    width = torch.finfo(points.dtype).eps ** (1 / 3) * points.abs().clamp(min=1.0)
    offsets = torch.diag_embed(width)
    around = torch.stack([points[:, None] + offsets, points[:, None] - offsets], 2)  # (P, D, 2, D)
    flat = around.reshape(-1, dim)
    padded = torch.cat([flat, flat[:1].expand(-len(flat) % batch, dim)])
    gradients = torch.cat([density(some)[1] for some in padded.split(batch)])[: len(flat)]
    ahead, behind = gradients.reshape(around.shape).unbind(2)
    hessian = torch.nan_to_num((ahead - behind) / (2 * width[:, :, None]), nan=0.0, posinf=0.0, neginf=0.0)
    return 0.5 * (hessian + hessian.mT)


def laplace(value: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log evidence `(P,)`, up to a constant, and the covariance `(P, D, D)` around points.

    Normal approximations from the log density `value (P,)` and its `hessian (P, D, D)`; flat and
    rising directions count as of scale 1.
    """
    curvature, vectors = torch.linalg.eigh(-hessian)
    curvature = flat_as_one(curvature)
    covariance = (vectors / curvature[:, None, :]) @ vectors.mT
    evidence = value - 0.5 * curvature.log().sum(-1)
    return evidence.nan_to_num(nan=-torch.inf), covariance


def flat_as_one(curvature: Tensor) -> Tensor:
    """Return curvatures `(P, D)` with those of flat and of rising directions set to 1."""
    largest = curvature.abs().amax(-1, keepdim=True)
    return torch.where(curvature > 1e-9 * largest.clamp(min=1e-3), curvature, 1.0)
