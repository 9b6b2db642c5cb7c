"""Expectation-maximisation: the most likely values of what all rows share.

Discrete sites are summed out exactly (`capture.expectation`), and given how often each of their values is
to be expected, latents have formulas (`infer.maximisation`) or climb.  The likelihood never falls
(Dempster, Laird and Rubin 1977).  It may have several peaks, so several starts run side by side; the
highest is then climbed by Newton's method, whose curvature, the observed information, gives the standard
errors.  Priors do not count unless `penalised`.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.joint import evaluate
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.em_climb import Search
from pyrolatent.infer.em_doubts import (
    component_doubts,
    looked_around,
    normal_doubts,
    over_one_component,
    peak_doubts,
    unfinished,
)
from pyrolatent.infer.em_samples import samples_at
from pyrolatent.infer.em_setup import climbing_steps, screening_steps, steps_of, still_hold
from pyrolatent.infer.em_steps import MixtureSteps, counted
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.proposal import NormalProposal
from pyrolatent.infer.stages import kept_of
from pyrolatent.result import Fit, Problem
from pyrolatent.seeds import generator


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
            some = screening_steps(problem, sites, self.penalised) if problem.start is None else None
            clock.lap("structure")
            context = steps.latents.density.context()
            with context, progress_bar(self.num_steps, wanted=problem.progress) as bar:
                kept = kept_of(problem)
                search = Search(problem, self.num_starts, self.num_steps, self.tolerance, kept, bar)
                peaks, ends = search.peaks(steps, some)
                if isinstance(steps, MixtureSteps) and not still_hold(steps, peaks, problem):
                    steps = climbing_steps(problem, steps.formulas.forgotten, self.penalised)
                    peaks, ends = search.peaks(steps, None)
                density, gain = steps.latents.density, over_one_component(steps, peaks[0])
                best, rough = looked_around(peaks[0].mode, steps.log_likelihood)
                clock.lap("iterations")
                random = generator(problem.seed, "em", device=problem.device)
                draws, _ = NormalProposal(best.position, best.factor).draw(self.num_draws, random)
                height = log_likelihood_at(best.position, density) if self.penalised else best.log_density
            samples = samples_at(problem, density, sites, draws)
            clock.lap("draws")
        warnings = unfinished(ends) + peak_doubts(peaks) + normal_doubts(best, rough, density, self.penalised)
        info = {
            **steps.how_it_ran,
            "num_steps": int(ends.count),
            "log_likelihood": float(height),
            "num_peaks": len(peaks),
            "nats_over_one_component": gain,
        }
        return Fit(
            problem, self, sites, samples, {}, {}, warnings + component_doubts(gain), info | clock.info,
            state={"position": best.position, "covariance": best.covariance},
        )  # fmt: skip


def log_likelihood_at(position: Tensor, density: LogDensity) -> Tensor:
    """Return the log-likelihood `()` at free numbers `(D,)`, without priors."""
    joint = evaluate(density.model, density.data, density.sites, position)
    return log_total(counted(joint, penalised=False))
