"""Importance sampling as a method: draws of a proposal, weighed against the posterior.

The proposal is what is known best: the guide that `start` has trained, a normal at the draws of
`start`, a guide without parameters, or a normal at the highest mode.  A normal has heavy tails added
and moves to where its weighted draws are (`proposal`).  The weights are Pareto-smoothed (`psis`), and
Pareto k says whether they can be trusted.

Draws are then picked to have equal weights, without replacement (`resampling`).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.diagnostics import MIN_ESS
from pyrolatent.infer.chains import interrupted
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.guide_proposal import given_guide, trained_guide
from pyrolatent.infer.laplace import MIN_DRAWS, climbers, doubts
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.modes import find_modes
from pyrolatent.infer.points import capture_points
from pyrolatent.infer.proposal import MAX_MOVES, HeavyNormal, Proposal, adapted, log_ratios
from pyrolatent.infer.resampling import resampled
from pyrolatent.infer.speed import slowness
from pyrolatent.infer.stages import Stages, stages_of
from pyrolatent.infer.start import check_same_model, learnt, starting_draws
from pyrolatent.infer.tuning import flat_covariance
from pyrolatent.kernels.adaptation import pooled_covariance
from pyrolatent.psis import psis, quantity_ess, reliable_k, weights_ess
from pyrolatent.result import Fit, Problem, Weights
from pyrolatent.seeds import generator

ALONE = 0.9  # share of the raw weight from which one draw stands for all
NORMAL = ("position", "covariance")  # in the state of a Laplace approximation


@final
@dataclass(frozen=True)
class ImportanceSampling(Method):
    """Settings of importance sampling.

    Args:
        num_draws: Draws of the proposal; those kept in `samples` are fewer.

    Raises:
        ArgumentError: Fewer than 100 draws.
    """

    uses_guide: ClassVar[bool] = True

    num_draws: int = 10_000

    def __post_init__(self) -> None:
        check_least("num_draws", self.num_draws, MIN_DRAWS)

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        density, parameters, params, state = learnt(problem)
        random = generator(problem.seed, "importance", device=problem.device)
        with density.context(), torch.no_grad():
            planned = (2 + MAX_MOVES) * self.num_draws
            points = capture_points(density, problem.compile, planned)
            clock.lap("capture")
            stages = stages_of(problem, points, planned)
            proposal, warnings = choose_proposal(problem, stages, self.num_draws, random)
            clock.lap("proposal")
            position, log_prob = proposal.draw(self.num_draws, random)
            value = stages.log_density(position, least=MIN_DRAWS)
            made = len(value)
            position, raw = position[:made], log_ratios(value, log_prob[:made])
        smoothed, pareto_k = psis(raw)
        keep = resampled(smoothed, random)
        samples = density.samples(position[keep][None], problem.seed)
        clock.lap("draws")
        diagnostics = judged(density, position, smoothed, len(keep))
        clock.lap("diagnostics")
        log_evidence, error = evidence(raw)
        info = points.info | clock.info | {"log_evidence": log_evidence, "log_evidence_error": error}
        info["ess"] = weights_ess(smoothed)
        warnings += interrupted(problem, made, self.num_draws) if made < self.num_draws else ()
        warnings += weaknesses(raw, smoothed, pareto_k, len(keep)) + slowness(density, problem.compile)
        weights, stats = Weights(raw.cpu(), smoothed.cpu(), pareto_k), {"lp": value[keep][None].cpu()}
        return Fit(
            problem, self, density.sites, samples, stats, diagnostics, warnings, info,
            weights=weights, params=params, state=state, parameters=parameters,
        )  # fmt: skip


def choose_proposal(
    problem: Problem, stages: Stages, num_draws: int, random: torch.Generator
) -> tuple[Proposal, tuple[str, ...]]:
    """Return what is known best to stand in for the posterior, and what speaks against it."""
    points, start = stages.points, problem.start
    density = points.density
    warnings: tuple[str, ...] = ()
    if (guide := trained_guide(problem, density)) is not None:
        return guide, warnings
    if start is not None:
        normal = normal_of(density, start)
    elif (guide := given_guide(problem, density)) is not None:
        return guide, warnings
    else:
        modes = find_modes(stages, climbers(points, None, random))
        normal, warnings = HeavyNormal(modes[0].position, modes[0].factor), doubts(modes, density)
    return adapted(normal, stages.log_density, num_draws, random), warnings


def normal_of(density: LogDensity, start: Fit) -> HeavyNormal:
    """Return the normal of a Laplace approximation, or one at the draws of another fit."""
    if "position" in start.state:
        check_same_model(density, start)
        centre, covariance = (start.state[name].to(density.device, density.dtype) for name in NORMAL)
    else:
        draws = starting_draws(density, start)
        centre, covariance = draws.mean(0), pooled_covariance(draws, flat_covariance(density))
    return HeavyNormal(centre, torch.linalg.cholesky(covariance))


def judged(
    density: LogDensity, position: Tensor, log_weights: Tensor, number: int
) -> dict[str, dict[str, Tensor]]:
    """Return the effective sample size of each quantity, at most the `number` of draws kept."""
    counts = log_weights.isfinite()
    sites = density.constrain(position[counts])
    return {
        name: {"ess": quantity_ess(log_weights[counts], values).clamp(max=number).cpu()}
        for name, values in sites.items()
    }


def evidence(raw: Tensor) -> tuple[float, float]:
    """Return the log of the mean weight, from log weights `(S,)`, and its standard error, in nats."""
    shares = raw.double().softmax(0)
    relative_variance = (shares.square().sum() - 1 / len(raw)).clamp(min=0.0)
    return float(raw.double().logsumexp(0)) - math.log(len(raw)), float(relative_variance.sqrt())


def weaknesses(raw: Tensor, smoothed: Tensor, pareto_k: float, kept: int) -> tuple[str, ...]:
    """Return what makes the weights weaker than they look, with what to do."""
    number, limit, ess = len(raw), reliable_k(len(raw)), weights_ess(smoothed)
    if (share := float(raw.softmax(0).max())) > ALONE:
        return (
            f"One of {number} draws carries {share:.0%} of the importance weight: the proposal misses the "
            "posterior, and the result is that one draw. Use HMC(), or pass start= a fit by HMC() or SVI().",
        )
    found = []
    if not pareto_k <= limit:
        found.append(
            f"Pareto k is {pareto_k:.2f} (> {limit:.2f}): the weights cannot be trusted, and more draws help "
            "little. Use HMC(), or pass start= a fit by HMC() or SVI()."
        )
    if min(ess, kept) < MIN_ESS:
        found.append(
            f"The {number} draws are worth {ess:.0f}, and {kept} could be kept with equal weights "
            f"(< {MIN_ESS}): intervals are rough. Raise num_draws, use HMC(), or pass start= a fit by HMC() "
            "or SVI()."
        )
    return tuple(found)
