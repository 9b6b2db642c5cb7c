"""Laplace's approximation as a method: the normal around the highest mode.

In the unconstrained space, the normal has its mean at the mode and, as its precision, the curvature
of the log density there.  That is exact for a normal posterior and close to it for many data.  How
close it is, its own draws tell: weighed against the posterior, they have a Pareto k (`psis`).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.infer.chains import interrupted
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.modes import Mode, find_modes
from pyrolatent.infer.points import Points, capture_points
from pyrolatent.infer.proposal import NormalProposal, log_ratios
from pyrolatent.infer.speed import slowness
from pyrolatent.infer.stages import stages_of
from pyrolatent.infer.start import learnt, spaced, starting_draws, starting_points
from pyrolatent.psis import psis, reliable_k
from pyrolatent.result import Fit, Problem, Weights
from pyrolatent.seeds import generator

MIN_DRAWS = 100  # among fewer, no tail of weights could be seen
COMPARABLE = math.log(100)  # nats of evidence within which another mode has a share worth a word
LARGE_SHARE = 0.1  # of a direction's squared length, from which it is a site's direction


@final
@dataclass(frozen=True)
class Laplace(Method):
    """Settings of Laplace's approximation.

    Args:
        num_draws: Independent draws from the normal.

    Raises:
        ArgumentError: Fewer than 100 draws.
    """

    num_draws: int = 1_000

    def __post_init__(self) -> None:
        check_least("num_draws", self.num_draws, MIN_DRAWS)

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        density, parameters, params, state = learnt(problem)
        random = generator(problem.seed, "laplace", device=problem.device)
        with density.context(), torch.no_grad():
            points = capture_points(density, problem.compile, self.num_draws)
            clock.lap("capture")
            stages = stages_of(problem, points, self.num_draws)
            modes = find_modes(stages, climbers(points, problem.start, random))
            clock.lap("ascent")
            mode = modes[0]
            position, log_prob = NormalProposal(mode.position, mode.factor).draw(self.num_draws, random)
            value = stages.log_density(position, least=MIN_DRAWS)
            made = len(value)
            raw = log_ratios(value, log_prob[:made])
        smoothed, pareto_k = psis(raw)
        possible = raw.isfinite()
        samples = density.samples(position[:made][possible][None], problem.seed)
        clock.lap("draws")
        info = points.info | clock.info | {"log_evidence": mode.log_evidence, "num_modes": len(modes)}
        warnings = interrupted(problem, made, self.num_draws) if made < self.num_draws else ()
        warnings += doubts(modes, density) + misfit(pareto_k, possible)
        warnings += slowness(density, problem.compile)
        return Fit(
            problem, self, density.sites, samples, {"lp": value[possible][None].cpu()}, {}, warnings, info,
            weights=Weights(raw.cpu(), smoothed.cpu(), pareto_k),
            state={"position": mode.position, "covariance": mode.covariance} | state,
            params=params,
            parameters=parameters,
        )  # fmt: skip


def climbers(points: Points, start: Fit | None, random: torch.Generator) -> Tensor:
    """Return where climbs begin `(B, D)`: at draws of an earlier fit, or at random."""
    if start is not None:
        return spaced(starting_draws(points.density, start), points.batch)
    return starting_points(points.density, points, points.batch, 1, random)


def doubts(modes: list[Mode], density: LogDensity) -> tuple[str, ...]:
    """Return what speaks against a normal around the first of `modes`, each with what to do."""
    mode, *others = modes
    found = []
    if not mode.reached:
        found.append(
            f"The climb did not end at a mode: the log density still rises, most in "
            f"{sites_of(mode.factor @ mode.slope, density)}. "
            "Use HMC(), or give priors that keep scales away from zero."
        )
    if number := mode.flat.shape[1]:
        found.append(
            f"The log density does not fall along {number} of {density.dim} directions from the mode, "
            f"in {sites_of(mode.flat, density)}: the normal has scale 1 there. Give proper priors, or use "
            "HMC()."
        )
    close = [other for other in others if mode.log_evidence - other.log_evidence < COMPARABLE]
    if close:
        apart = torch.stack([other.position - mode.position for other in close], 1)
        found.append(
            f"Other modes ({len(close)} found) hold a comparable share of the posterior, apart in "
            f"{sites_of(apart, density)}: the normal is around one alone. Use HMC(), or order what can be "
            "exchanged."
        )
    return tuple(found)


def misfit(pareto_k: float, possible: Tensor) -> tuple[str, ...]:
    """Return how far the normal is from the posterior, if it is far."""
    limit = reliable_k(len(possible))
    found = []
    if not pareto_k <= limit:
        found.append(
            f"Pareto k of the normal approximation is {pareto_k:.2f} (> {limit:.2f}): the posterior is not "
            "normal, so means and intervals may be wrong. Use HMC()."
        )
    if not possible.all():
        found.append(
            f"{int((~possible).sum())} of {len(possible)} draws were dropped, where the density is 0: the "
            "posterior ends within the normal's reach. Use HMC(), or give the sites the support that the "
            "model allows."
        )
    return tuple(found)


def sites_of(directions: Tensor, density: LogDensity) -> str:
    """Return in words the sites that have a large share in `directions (D,)` or `(D, K)`."""
    squared = directions.reshape(len(directions), -1).square()
    share = (squared / squared.sum(0)).amax(1)
    parts = density.sites.layout.unpack(share)
    names = [name for name, part in parts.items() if part.numel() and part.sum() >= LARGE_SHARE]
    return f"site {names[0]!r}" if len(names) == 1 else f"sites {names}"
