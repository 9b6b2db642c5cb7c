"""Expectation-maximisation: the most likely values of what all rows share.

Discrete sites are summed out exactly (`capture.expectation`), and given how often each of their values is
to be expected, latents have formulas (`infer.maximisation`) or climb.  The likelihood never falls
(Dempster, Laird and Rubin 1977).  It may have several peaks, so several starts run side by side; the
highest is then climbed by Newton's method, whose curvature, the observed information, gives the standard
errors.  Priors do not count unless `penalised`.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.ladder import close
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.sites import SiteTable
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.em_climb import Budget, Ends, Peak, find_peaks
from pyrolatent.infer.em_gaussian import samples_of_rows, unmoved_sites
from pyrolatent.infer.em_setup import at_few_rows, screening_steps, steps_of
from pyrolatent.infer.em_starts import evidence
from pyrolatent.infer.em_steps import MixtureSteps, Steps
from pyrolatent.infer.laplace import COMPARABLE, sites_of
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.modes import Mode
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.proposal import NormalProposal
from pyrolatent.pair import as_pair
from pyrolatent.result import Fit, Problem
from pyrolatent.seeds import generator

MAX_NUMBERS = 2**21  # draws of what rows have of their own, kept in a fit
WORTH = 10.0  # nats that a mixture should be above a single component
ROUNDS = 2  # of formulas, whose scales depend on locations


@final
@dataclass(frozen=True)
class EM(Method):
    """Settings of expectation-maximisation.

    Args:
        num_starts: Side by side; the highest one is kept.
        num_steps: Iterations at most.
        tolerance: Nats of log-likelihood left to gain, by the last gains, at which it ends.
        penalised: Whether priors count, so that the highest posterior density is looked for.
        num_draws: Draws of the normal approximation around the result.

    Raises:
        ArgumentError: A number is too small.
    """

    num_starts: int = 10
    num_steps: int = 10_000
    tolerance: float = 1e-6
    penalised: bool = False
    num_draws: int = 1_000

    def __post_init__(self) -> None:
        for name in ("num_starts", "num_steps", "num_draws"):
            check_least(name, getattr(self, name), 1)

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        with torch.no_grad():
            steps, sites = steps_of(problem, self.penalised)
            density = steps.latents.density
            some = screening_steps(problem, sites, self.penalised) if problem.start is None else None
            clock.lap("structure")
            with density.context(), progress_bar(self.num_steps, wanted=problem.progress) as bar:
                budget = Budget(self.num_starts, self.num_steps, self.tolerance)
                peaks, ends = find_peaks(budget, steps, some, problem, bar)
                best = peaks[0].mode
                clock.lap("iterations")
                random = generator(problem.seed, "em", device=problem.device)
                draws, _ = NormalProposal(best.position, best.factor).draw(self.num_draws, random)
                gain = float(best.log_density) - one_component(steps, peaks[0].latents)
            samples = samples_at(problem, density, sites, draws)
            clock.lap("draws")
        warnings = (
            unfinished(ends) + peak_doubts(peaks) + normal_doubts(best, density) + component_doubts(gain)
        )
        info = {
            **steps.how_it_ran,
            "num_steps": int(ends.count),
            "log_likelihood": float(best.log_density),
            "num_peaks": len(peaks),
        }
        return Fit(
            problem, self, sites, samples, {}, {}, warnings, info | clock.info,
            state={"position": best.position, "covariance": best.covariance},
        )  # fmt: skip


def samples_at(problem: Problem, density: LogDensity, sites: SiteTable, draws: Tensor) -> dict[str, Tensor]:
    """Return draws `(1, draw, *site)`, on the host, at positions `(draw, D)`.

    Sites that rows have of their own are among them unless they are too many.  A density at few rows makes
    the others, unless they depend on which rows there are.
    """
    known = {**sites.latents, **sites.deterministics}
    shared = [name for name, site in known.items() if DATA_PLATE not in site.plates]
    own = [site for site in (*known.values(), *sites.discrete.values()) if site.name not in shared]
    share = max(1, (sites.rows or 1) // max(1, density.sites.rows or 1))
    whole = replace(density, data=problem.data, sites=sites, largest_table=share * density.largest_table)
    few_enough = len(draws) * sum(site.shape.numel() for site in own) <= MAX_NUMBERS
    if sites.row_latents and few_enough:
        return samples_of_rows(problem, density, sites, draws)
    if sites.row_latents:
        kept = unmoved_sites(problem, density, sites, draws[0])
        without = samples_at(replace(problem, pair=as_pair(density.model)), density, density.sites, draws)
        return {name: value for name, value in without.items() if name in kept}
    if few_enough:
        return whole.samples(draws[None], problem.seed)
    with density.context():
        few = at_few_rows(problem, sites, generator(problem.seed, "few rows", device=problem.device))
    first, again = (d.constrain(draws[:1]) for d in (few or whole, whole))
    source = few if few and all(close(first[name], again[name]) for name in shared) else whole
    size = source.points_at_once
    pieces = (source.constrain(some, at_once=size) for some in draws.split(size))
    found = [{name: values[name].cpu() for name in shared} for values in pieces]
    return {name: torch.cat([part[name] for part in found])[None] for name in shared}


def unfinished(ends: Ends) -> tuple[str, ...]:
    """Return a warning of starts that were cut."""
    return (
        ()
        if ends.finished
        else (f"EM was still gaining after {int(ends.count)} iterations. Raise num_steps.",)
    )


def peak_doubts(peaks: list[Peak]) -> tuple[str, ...]:
    """Return what speaks against the first of the peaks, with what to do."""
    if peaks[0].spiked:
        return (
            "Every start ended in a spike: a component with a scale of 0, around values that are all equal. "
            "Take fewer components, or give scales a prior and pass EM(penalised=True) or HMC().",
        )
    best, *others = (float(peak.mode.log_density) for peak in peaks if not peak.spiked)
    near = [other for other in others if best - other < COMPARABLE]
    if not near:
        return ()
    heights = ", ".join(f"{height:.2f}" for height in (best, *near))
    return (
        f"The likelihood has several peaks of about the same height ({heights} nats), with different "
        "results: the data do not tell which is right. Label some rows, take fewer components, or use HMC().",
    )


def normal_doubts(mode: Mode, density: LogDensity) -> tuple[str, ...]:
    """Return what speaks against the normal around a peak, with what to do."""
    found = []
    if number := mode.flat.shape[1]:
        found.append(
            f"The likelihood does not tell {number} of {density.dim} directions, in "
            f"{sites_of(mode.flat, density)}: only what is left when they are combined is known. "
            "Fix one of them, or give priors and pass EM(penalised=True)."
        )
    if not mode.reached:
        found.append(
            f"The likelihood still rises at the edge of what is possible, in "
            f"{sites_of(mode.factor @ mode.slope, density)}: standard errors there mean nothing. Give "
            "priors and pass EM(penalised=True), or use HMC()."
        )
    return tuple(found)


def one_component(steps: Steps, best: Tensor) -> float:
    """Return the highest log-likelihood of a mixture with one value of the discrete sites, in nats.

    -inf for other models, and where rows tell their values.
    """
    if not isinstance(steps, MixtureSteps) or steps.rows.num_values == 1 or evidence(steps).any():
        return -math.inf
    shares = torch.zeros(1, steps.rows.num_values, len(steps.rows.counts)).to(best)
    shares[:, 0] = 1.0
    latents = best[None]
    for _ in range(ROUNDS):
        latents = steps.from_shares(latents, shares)
    return float(steps.improved(latents)[0])


def component_doubts(gain: float) -> tuple[str, ...]:
    """Return a warning where a mixture is hardly better than one of its components."""
    if gain >= WORTH:
        return ()
    return (
        f"The mixture is {gain:.1f} nats more likely than a single component (< {WORTH:g}): the data hardly "
        "tell that there are several. Do not read a result into them; label some rows or take one component.",
    )
