"""Adaptation of Hamiltonian Monte Carlo: step size, metric and path length, pooled over chains."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrolatent.kernels.hmc import Metric, metric
from pyrolatent.kernels.leapfrog import Density

PATH_FACTOR = 1.5
PATH_JITTER = (0.4, 1.6)
MAX_DENSE = 300  # dimensions; beyond, the metric is diagonal
MAX_STEPS = 512  # leapfrog steps in one trajectory


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes by dual averaging (Hoffman and Gelman 2014, section 3.2; their constants).

    All tensors have the shape of the step size: `(B,)` for one of each chain, `()` for one of all.
    """

    centre: Tensor  # log of ten times the first step size
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
    return DualAveraging(math.log(10) + log_step, torch.zeros_like(log_step), log_step, log_step)


def pooled_covariance(draws: Tensor) -> Tensor:
    """Return the covariance `(D, D)` of `draws (S, D)`, or variances `(D,)` in many dimensions.

    Shrunk towards its diagonal, and the diagonal away from zero, by a weight of D + 5 draws.
    """
    num_draws, dim = draws.shape
    centred = draws - draws.mean(0)
    variances = (centred**2).mean(0) * num_draws / (num_draws + 5) + 1e-6
    if dim > MAX_DENSE:
        return variances
    weight = num_draws / (num_draws + dim + 5)
    covariance = weight * centred.T @ centred / num_draws
    return covariance + torch.diag(variances - covariance.diagonal())


def path_length(draws: Tensor, metric: Metric) -> float:
    """Return the mean path: 1.5 sd of the widest direction of `draws (S, D)`, in the metric's units."""
    centred = draws - draws.mean(0)
    if metric.covariance.ndim == 1:
        white = centred / metric.factor
    else:
        white = torch.linalg.solve_triangular(metric.factor, centred.T, upper=False).T
    gram = white.T @ white if white.shape[1] <= len(white) else white @ white.T
    return PATH_FACTOR * math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]) / len(draws))


def curvature_metric(density: Density, position: Tensor) -> Metric:
    """Return a first metric from the curvature at the best of `position (B, D)`.

    The Hessian by central differences of the gradient, B points at a time; directions of
    negative or hardly any curvature count as flat as the prior scale of a free number, 1.
    """
    batch, dim = position.shape
    best = position[density(position)[0].nan_to_num(nan=-torch.inf).argmax()]
    width = torch.finfo(position.dtype).eps ** (1 / 3) * best.abs().clamp(min=1.0)
    points = torch.cat([best + torch.diag(width), best - torch.diag(width)])
    padded = torch.cat([points, best.expand(-len(points) % batch, dim)])
    gradients = torch.cat([density(chunk)[1] for chunk in padded.split(batch)])[: 2 * dim]
    hessian = (gradients[:dim] - gradients[dim:]) / (2 * width[:, None])
    return metric(inverse_curvature(hessian))


def inverse_curvature(hessian: Tensor) -> Tensor:
    """Return minus the inverse of `hessian (D, D)`, made positive definite; its diagonal if large."""
    hessian = torch.nan_to_num(hessian, nan=0.0, posinf=0.0, neginf=0.0)
    if len(hessian) > MAX_DENSE:
        return 1 / flat_as_one(-hessian.diagonal())
    values, vectors = torch.linalg.eigh(-0.5 * (hessian + hessian.T))
    return (vectors / flat_as_one(values)) @ vectors.T


def flat_as_one(curvature: Tensor) -> Tensor:
    """Return curvatures with those of flat and of descending directions set to 1."""
    return torch.where(curvature > 1e-6 * curvature.abs().max().clamp(min=1e-12), curvature, 1.0)
