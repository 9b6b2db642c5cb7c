"""Ascent of a log density, all chains at once: L-BFGS (Liu and Nocedal 1989) with backtracking.

Chains share nothing but the calls of the density: each accepts, shortens its step and updates its
history on its own.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrolatent.kernels.leapfrog import Density

HISTORY = 50  # pairs of steps and gradient changes kept
SUFFICIENT = 1e-4  # share of the gain promised by the gradient that a step must bring
SHORTEN = 0.3
PATIENCE = 20
ENOUGH = 0.1


def whitened_ascent(
    density: Density, position: Tensor, covariance: Tensor, max_evaluations: int, patience: int
) -> Tensor:
    """Return higher points `(B, D)`, by steps in units of a `covariance (D, D)`.

    Where that is the inverse curvature they are Newton's, of at most length 1 at first, and few are needed.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    factor = torch.where(failed > 0, torch.eye(len(factor)).to(factor), factor)

    def moved(offset: Tensor) -> Tensor:
        return position + offset @ factor.mT

    def white(offset: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = density(moved(offset))
        return value, gradient @ factor

    return moved(lbfgs_ascent(white, torch.zeros_like(position), max_evaluations, patience))


class Pair(NamedTuple):
    """A step `(B, D)`, the fall of the gradient along it `(B, D)`, and 1 / their product `(B,)`, or 0."""

    step: Tensor
    fall: Tensor
    weight: Tensor


def lbfgs_ascent(
    density: Density, position: Tensor, max_evaluations: int, patience: int = PATIENCE
) -> Tensor:
    """Return higher points `(B, D)`, from `position (B, D)`; a chain that cannot rise stays.

    It ends when no chain has gained `ENOUGH` nats in the last `patience` evaluations.
    """
    value, gradient = density(position)
    direction, length = gradient, (1 / gradient.norm(dim=-1)).clamp(max=1.0)
    pairs: list[Pair] = []
    before = value
    for count in range(1, max_evaluations + 1):
        trial = position + length[:, None] * direction
        trial_value, trial_gradient = density(trial)
        promised = length * (gradient * direction).sum(-1)
        rises = (trial_value > value + SUFFICIENT * promised) & trial_gradient.isfinite().all(-1)
        pairs = [*pairs, pair(trial - position, gradient - trial_gradient, rises)][-HISTORY:]
        position = torch.where(rises[:, None], trial, position)
        value = torch.where(rises, trial_value, value)
        gradient = torch.where(rises[:, None], trial_gradient, gradient)
        direction = ascent_direction(gradient, pairs)
        length = torch.where(rises, 1.0, SHORTEN * length)
        if count % patience == 0:
            if not (value - before > ENOUGH).any():
                break
            before = value
    return position


def pair(step: Tensor, fall: Tensor, rises: Tensor) -> Pair:
    """Return the pair of each chain, of no weight where it did not rise or found no curvature."""
    product = (step * fall).sum(-1)
    counts = rises & (product > 1e-10 * (fall * fall).sum(-1))
    zero = torch.zeros_like(step)
    weight = torch.where(counts, 1 / torch.where(counts, product, 1.0), 0.0)
    return Pair(torch.where(counts[:, None], step, zero), torch.where(counts[:, None], fall, zero), weight)


def ascent_direction(gradient: Tensor, pairs: list[Pair]) -> Tensor:
    """Return the two-loop product of inverse curvature and gradient `(B, D)`; the gradient if it falls."""
    direction, shares = gradient, []
    for step, fall, weight in reversed(pairs):
        shares.append(weight * (step * direction).sum(-1))
        direction = direction - shares[-1][:, None] * fall
    direction = direction * scale(pairs)[:, None]
    for (step, fall, weight), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - weight * (fall * direction).sum(-1))[:, None] * step
    rises = (direction * gradient).sum(-1) > 0
    return torch.where(rises[:, None], direction, gradient)


def scale(pairs: list[Pair]) -> Tensor:
    """Return the inverse curvature `(B,)` along each chain's last step that counts, or 1."""
    result = torch.ones_like(pairs[0].weight)
    for step, fall, weight in pairs:
        ratio = (step * fall).sum(-1) / (fall * fall).sum(-1)
        result = torch.where(weight > 0, ratio, result)
    return result
