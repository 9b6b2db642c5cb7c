"""A run of many chains from a captured density to a judged fit, whatever moves the chains.

Chains of one superchain start at one point, so that nested R-hat (Margossian et al. 2024) can
judge many short chains.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.compile import Graph
from pyrolatent.capture.density import LogDensity
from pyrolatent.diagnostics import MAX_RHAT, MIN_ESS, min_ess, nested_rhat
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.guide_proposal import trained_guide
from pyrolatent.infer.method import Method
from pyrolatent.infer.movers import Mover
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.sampler import Plan, Sampler
from pyrolatent.infer.speed import how_it_ran, slowness
from pyrolatent.infer.start import Learnt, starting_draws
from pyrolatent.kernels.leapfrog import Density
from pyrolatent.result import Fit, Problem
from pyrolatent.seeds import generator

SUPERCHAIN_SIZE = 4
MANY_CHAINS = 16
MANY_CUT = 0.01  # of the transitions
NUM_GUIDE = 500  # draws of a guide, from which chains begin and learn their first metric

Diagnostics = dict[str, dict[str, Tensor]]  # site -> R-hat and effective sample size of every entry


def superchains(num_chains: int) -> int:
    """Return how many chains begin at one point: one where they are few."""
    return SUPERCHAIN_SIZE if num_chains >= MANY_CHAINS and num_chains % SUPERCHAIN_SIZE == 0 else 1


def check_shares(problem: Problem, plan: Plan) -> None:
    """Refuse chains that cannot be shared out among the processes.

    Raises:
        ArgumentError: The superchains are no multiple of the processes.
    """
    problem.ranks.check_share("the starting points of chains", plan.num_chains // plan.superchain_size)


def run_chains(
    problem: Problem,
    learnt: Learnt,
    method: Method,
    plan: Plan,
    mover: Mover,
    evaluate: Density,
    graph: Graph | None,
    clock: Clock,
    target_ess: int | None = None,
) -> Fit:
    """Warm up, draw, and judge; call in the density's context.

    Args:
        problem: What is fitted.
        learnt: The density, and what was learnt before.
        method: The settings with every default filled in.
        plan: Chains and transitions.
        mover: One transition of this process's chains.
        evaluate: Log density and gradient of this process's chains.
        graph: What is run at each step, where it was captured.
        clock: Its capture was timed by the caller.
        target_ess: Draws end when this effective sample size is reached.
    """
    density, size = learnt.density, plan.superchain_size
    with progress_bar(plan.num_warmup + plan.num_draws, wanted=problem.progress) as bar:
        random = generator(problem.seed, "hmc", device=problem.device)
        sampler = Sampler(density, evaluate, mover, plan, random, bar, problem.ranks, problem.checkpoint)
        run, draws = sampler.begin(lambda: first_draws(problem, density, random))
        run = sampler.warm_up(run)
        clock.lap("warmup")
        judge = Judge(density, problem.seed, size)
        enough = None if target_ess is None else partial(judge.reaches, target_ess)
        whole = sampler.draw(run, draws, enough)
        clock.lap("sampling")
    stats = {name: problem.ranks.gather(values) for name, values in draws.since().items()}
    judge.look(stats.pop("position"))
    diagnostics = judge.diagnostics
    clock.lap("diagnostics")
    tuned = run.tuned
    info = how_it_ran(density, graph) | clock.info | {
        "superchain_size": size,
        "step_size": float(tuned.step_size),
        "path_length": float((stats["n_steps"] * stats["step_size"]).mean()),
        "restarted_chains": tuned.restarts,
    }  # fmt: skip
    made = draws.number
    unfinished = short(diagnostics, target_ess, made) if whole else interrupted(problem, made, plan.num_draws)
    warnings = unfinished + weaknesses(stats, diagnostics, mover.max_steps)
    return Fit(
        problem, method, density.sites, judge.samples, stats, diagnostics,
        warnings + slowness(density, problem.compile), info,
        params=learnt.params, state=learnt.state, parameters=learnt.parameters,
    )  # fmt: skip


def first_draws(problem: Problem, density: LogDensity, random: torch.Generator) -> Tensor | None:
    """Return draws `(S, D)` of the fit to start from, or of the guide that it has learnt, if there is one."""
    begun = problem.start
    if begun is not None and begun.samples:
        return starting_draws(density, begun)
    guide = trained_guide(problem, density)
    return None if guide is None else guide.draw(NUM_GUIDE, random).position


@final
class Judge:
    """Samples of all sites, with their diagnostics, at the draws looked at last."""

    def __init__(self, density: LogDensity, seed: int, superchain_size: int) -> None:
        self.density, self.seed, self.superchain_size = density, seed, superchain_size
        self.samples: dict[str, Tensor] = {}
        self.diagnostics: Diagnostics = {}
        self.number = 0

    def look(self, position: Tensor) -> None:
        """Take positions `(chain, draw, D)` into account; once, if there are no more draws than before."""
        if position.shape[1] != self.number:
            self.samples = self.density.samples(position, self.seed)
            self.diagnostics = diagnostics_of(self.samples, self.superchain_size)
            self.number = position.shape[1]

    def reaches(self, target_ess: int, position: Tensor) -> bool:
        """Return whether the latents as they are, and then all sites, have this effective sample size."""
        if not reached(diagnostics_of({"latents": position}, self.superchain_size), target_ess):
            return False
        self.look(position)
        return reached(self.diagnostics, target_ess)


def diagnostics_of(samples: Mapping[str, Tensor], superchain_size: int) -> Diagnostics:
    """Return R-hat and effective sample size of every entry of every site."""
    doubles = {name: draws.double() for name, draws in samples.items()}
    return {n: {"rhat": rhat_of(x, superchain_size), "ess": min_ess(x)} for n, x in doubles.items()}


def rhat_of(draws: Tensor, superchain_size: int) -> Tensor:
    """Return nested R-hat of draws `(chain, draw, *site)`; that of its halves where there is one chain."""
    if len(draws) > 1:
        return nested_rhat(draws, superchain_size)
    half = draws.shape[1] // 2
    return nested_rhat(draws[0, : 2 * half].unflatten(0, (2, half)), 1)


def reached(diagnostics: Diagnostics, target_ess: int) -> bool:
    """Return whether every entry has this effective sample size, and the chains agree."""
    ess, rhat = extreme(diagnostics, "ess", largest=False)[1], extreme(diagnostics, "rhat", largest=True)[1]
    return ess >= target_ess and not rhat > MAX_RHAT


def interrupted(problem: Problem, made: int, planned: int) -> tuple[str, ...]:
    """Return a warning of a run that the user ended."""
    folder = problem.checkpoint.folder
    remedy = "Fit again for the full number." if folder is None else f"Pass resume={str(folder)!r} to go on."
    return (f"Interrupted after {made} of {planned} draws a chain. {remedy}",)


def short(diagnostics: Diagnostics, target_ess: int | None, made: int) -> tuple[str, ...]:
    """Return a warning of a run whose budget ended before its target."""
    if target_ess is None or reached(diagnostics, target_ess):
        return ()
    ess_site, ess = extreme(diagnostics, "ess", largest=False)
    rhat_site, rhat = extreme(diagnostics, "rhat", largest=True)
    return (
        f"target_ess={target_ess} was not reached in {made} draws a chain: the effective sample size of "
        f"{ess_site!r} is {ess:.0f}, nested R-hat of {rhat_site!r} {rhat:.3f}. Raise num_draws, its budget.",
    )


def weaknesses(stats: dict[str, Tensor], diagnostics: Diagnostics, max_steps: int) -> tuple[str, ...]:
    """Return what makes the draws weaker than they look, each with what to do."""
    found = []
    if (divergences := int(stats["diverging"].sum())) > 0:
        found.append(
            f"{divergences} of {stats['diverging'].numel()} transitions diverged: parts of the "
            "posterior may be missing. Reparameterise (non-centred hierarchies) or give tighter priors."
        )
    cut = stats["n_steps"] >= max_steps
    if float(cut.double().mean()) > MANY_CUT:
        found.append(
            f"{int(cut.sum())} of {cut.numel()} transitions were cut at {max_steps} leapfrog steps: draws "
            "are more alike than they need be. Give parameters of like scales, a density without jumps, or "
            "trees a larger max_tree_depth."
        )
    rhat_site, rhat = extreme(diagnostics, "rhat", largest=True)
    if rhat > MAX_RHAT:
        found.append(
            f"Nested R-hat of {rhat_site!r} is {rhat:.3f} (> {MAX_RHAT}): the chains disagree. "
            "Raise num_warmup, or look for several modes."
        )
    ess_site, ess = extreme(diagnostics, "ess", largest=False)
    if ess < MIN_ESS:
        found.append(
            f"The effective sample size of {ess_site!r} is {ess:.0f} (< {MIN_ESS}): intervals are rough. "
            "Raise num_draws."
        )
    return tuple(found)


def extreme(diagnostics: Any, name: str, *, largest: bool) -> tuple[str, float]:
    """Return the site with the largest (or smallest) diagnostic, and that; constants, NaN, do not count."""
    sign = 1 if largest else -1
    values = {site: found[name] for site, found in diagnostics.items()}
    signed = {site: (sign * v[~v.isnan()]).max() for site, v in values.items() if not v.isnan().all()}
    worst = max(signed, key=lambda key: float(signed[key]), default="")
    return worst, sign * float(signed[worst]) if worst else float("nan")
