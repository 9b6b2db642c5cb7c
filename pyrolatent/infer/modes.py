"""Modes of a posterior, each with the normal that its curvature makes (Laplace's approximation).

Random starts climb side by side by L-BFGS, then the highest of them by Newton's method to full
accuracy.  Where the log density does not fall along a direction, as under an improper prior that
the data say nothing about, the normal has scale 1 there.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from pyrolatent.infer.stages import Stages
from pyrolatent.infer.start import MAX_ASCENT, adam_ascent
from pyrolatent.kernels.adaptation import flat_as_one, hessians
from pyrolatent.kernels.ascent import lbfgs_ascent
from pyrolatent.kernels.leapfrog import Density

MAX_MODES = 8  # looked at, highest first
MAX_NEWTON = 20  # steps
BULK = 3.0  # standard deviations around a mode within which a climb counts as on its way to it
SAME = 0.1  # standard deviations within which two modes are one
ENOUGH = 0.25  # of the squared slope, half of which a step gains if the curvature is the same all the way
LOOKS = 3  # at most, at directions that look flat
RESOLVED = 1e-6  # squared distance to the mode, in standard deviations, that values no longer tell


@final
@dataclass(frozen=True)
class Mode:
    """A mode, or where the climb ended, and the normal around it.

    Attributes:
        position: `(D,)`, unconstrained.
        log_density: In nats `()`.
        factor: F `(D, D)`: the covariance of the normal is F F'.
        slope: The gradient F' g, the step to the mode in standard deviations `(D,)`; 0 at a mode.
        flat: Unit directions `(D, K)` along which the log density does not fall.
    """

    position: Tensor
    log_density: Tensor
    factor: Tensor
    slope: Tensor
    flat: Tensor

    @property
    def covariance(self) -> Tensor:
        """Covariance `(D, D)` of the normal."""
        return self.factor @ self.factor.mT

    @property
    def log_evidence(self) -> float:
        """Laplace's approximation of the log evidence: log p + D/2 log(2 pi) + log |F|, in nats."""
        volume = 0.5 * len(self.position) * math.log(2 * math.pi) + torch.linalg.slogdet(self.factor)[1]
        return float(self.log_density + volume)

    @property
    def reached(self) -> bool:
        """Whether this is a mode."""
        return float(self.slope.norm()) < SAME

    def distance(self, points: Tensor) -> Tensor:
        """Return how far `points (P, D)` are from here, in standard deviations `(P,)`."""
        return torch.linalg.solve_ex(self.factor, (points - self.position).mT)[0].norm(dim=0)


def find_modes(stages: Stages, starts: Tensor) -> list[Mode]:
    """Return the modes that climbs from `starts (B, D)` end at, by evidence, the best first."""
    evaluate = stages.points

    def climb() -> dict[str, Tensor]:
        return {"position": lbfgs_ascent(evaluate, adam_ascent(evaluate, starts), MAX_ASCENT)}

    def mode_above(position: Tensor) -> dict[str, Tensor]:
        return vars(newton_ascent(evaluate, position))

    climbed = stages.once(climb)["position"]
    left = climbed[evaluate(climbed)[0].argsort(descending=True)]
    modes: list[Mode] = []
    for _ in range(MAX_MODES):
        mode = Mode(**stages.once(partial(mode_above, left[0])))
        if not any(other.distance(mode.position[None]) < SAME for other in modes):
            modes.append(mode)
        left = left[1:][mode.distance(left[1:]) > BULK]
        if not len(left):
            break
    return sorted(modes, key=lambda mode: (mode.reached, mode.log_evidence), reverse=True)


def newton_ascent(evaluate: Density, position: Tensor) -> Mode:
    """Climb from `position (D,)` by Newton's method, as far as the numbers resolve.

    The curvature is measured in the coordinates that the last one whitened, so that neither units
    nor correlations spoil its differences.
    """
    lengths = 0.5 ** torch.arange(16, dtype=position.dtype, device=position.device)
    factor, last = torch.eye(len(position), dtype=position.dtype, device=position.device), math.inf
    for steps_left in reversed(range(MAX_NEWTON)):
        (value,), (gradient,) = evaluate(position[None])
        factor, flat = whitened(evaluate, position, factor)
        slope = factor.mT @ gradient
        left = float(slope @ slope)
        if not steps_left or left < torch.finfo(slope.dtype).eps or (left < RESOLVED and left >= last):
            break
        step = factor @ slope
        if left >= RESOLVED and not gains(evaluate, position + step, value + ENOUGH * left):
            trials = position + lengths[:, None] * step
            values = evaluate(trials)[0].nan_to_num(nan=-torch.inf, neginf=-torch.inf)
            if not values.max() > value:
                break
            step = lengths[values.argmax()] * step
        position, last = position + step, left
    return Mode(position, value, factor, slope, flat)


def gains(evaluate: Density, position: Tensor, height: Tensor) -> bool:
    """True where the log density at `position (D,)` is at least `height ()`, in nats."""
    return bool(evaluate(position[None])[0] >= height)


def whitened(evaluate: Density, position: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor `(D, D)` that makes the curvature at `position (D,)` 1, and flat directions.

    `factor (D, D)` is a first guess of it; flat directions are `(D, K)`, of length 1.  What looks flat beside
    a much larger curvature is looked at again once that is 1.
    """

    def in_new_coordinates(z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = evaluate(position + z @ factor.mT)
        return value, gradient @ factor

    for _ in range(LOOKS):
        zero = torch.zeros_like(position)[None]
        (hessian,) = hessians(in_new_coordinates, zero, batch=2 * len(position))
        curvature, vectors = torch.linalg.eigh(-hessian)
        kept = flat_as_one(curvature)
        directions = factor @ vectors
        factor = directions * kept.rsqrt()
        if torch.equal(kept, curvature):
            break
    flat = directions[:, kept != curvature]
    return factor, flat / flat.norm(dim=0)
