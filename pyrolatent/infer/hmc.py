"""Hamiltonian Monte Carlo as a method: settings in, a judged fit out.

Chains of one superchain start at one point, so that nested R-hat (Margossian et al. 2024) can
judge many short chains.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.density import LogDensity
from pyrolatent.diagnostics import MAX_RHAT, MIN_ESS, min_ess, nested_rhat
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.sampler import Draws, Sampler, flat_covariance
from pyrolatent.infer.speed import compiled, default_chains, how_it_ran, slowness
from pyrolatent.infer.start import ADAM_STEPS, MAX_ASCENT, learnt, starting_draws
from pyrolatent.kernels.leapfrog import leapfrog_step
from pyrolatent.result import Compile, Fit, Problem
from pyrolatent.seeds import generator

SUPERCHAIN_SIZE = 4
MANY_CHAINS = 16
PLANNED_STEPS = 8  # leapfrog steps a transition is expected to take


@final
@dataclass(frozen=True)
class HMC(Method):
    """Settings of Hamiltonian Monte Carlo.

    Args:
        num_chains: By default 64 where all chains run in one graph, else 4, and fewer where
            chains times rows would exceed 4 GiB.
        num_warmup: Transitions that tune and are dropped; by default 100 for 16 or more chains,
            else 500.
        num_draws: Draws kept of each chain; by default 150 for 16 or more chains, else 1,000.

    Raises:
        ArgumentError: A number is too small to mean anything.
    """

    num_chains: int | None = None
    num_warmup: int | None = None
    num_draws: int | None = None

    def __post_init__(self) -> None:
        check_least("num_chains", self.num_chains, 1)
        check_least("num_warmup", self.num_warmup, 20)
        check_least("num_draws", self.num_draws, 10)

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        density, parameters, params, state = learnt(problem)
        chains, warmup, num_draws = self.resolved(density)
        superchain = SUPERCHAIN_SIZE if chains >= MANY_CHAINS and chains % SUPERCHAIN_SIZE == 0 else 1
        with (
            density.context(),
            torch.no_grad(),
            progress_bar(warmup + num_draws, wanted=problem.progress) as bar,
        ):
            planned = ADAM_STEPS + MAX_ASCENT + PLANNED_STEPS * (warmup + num_draws)
            graph = leapfrog_graph(density, chains, problem.compile, planned)
            step = graph or leapfrog_step(density.batched)
            random = generator(problem.seed, "hmc", device=problem.device)
            sampler = Sampler(density, step, random, bar)
            clock.lap("capture")
            begun = problem.start
            earlier = starting_draws(density, begun) if begun is not None and begun.samples else None
            tuned = sampler.warm_up(chains, superchain, warmup, earlier)
            clock.lap("warmup")
            draws = sampler.draw(tuned, num_draws)
            clock.lap("sampling")
        samples = density.samples(draws.position, problem.seed)
        diagnostics = {name: diagnose(values, superchain) for name, values in samples.items()}
        clock.lap("diagnostics")
        slow = slowness(density, problem.compile)
        info = how_it_ran(density, graph) | {
            "superchain_size": superchain,
            "step_size": float(tuned.step_size),
            "path_length": tuned.path,
            "restarted_chains": tuned.restarts,
            "seconds": clock.seconds,
        }
        method = HMC(chains, warmup, num_draws)
        warnings = weaknesses(draws, num_draws, diagnostics) + slow
        return Fit(
            problem, method, density.sites, samples, draws.stats, diagnostics, warnings, info,
            params=params, state=state, parameters=parameters,
        )  # fmt: skip

    def resolved(self, density: LogDensity) -> tuple[int, int, int]:
        """Return chains, warm-up and draws with every default filled in."""
        chains = self.num_chains or default_chains(density)
        many = chains >= MANY_CHAINS
        return chains, self.num_warmup or (100 if many else 500), self.num_draws or (150 if many else 1_000)


def leapfrog_graph(density: LogDensity, num_chains: int, compile: Compile, planned: int) -> Graph | None:
    """Return one leapfrog step of all chains as a graph, or None where they run one by one."""
    if not density.batched.vectorised:
        return None
    position = torch.zeros(num_chains, density.dim)
    step = leapfrog_step(density.batched.function)
    graph = capture(step, position, position.clone(), torch.ones(num_chains, 1), flat_covariance(density))
    return compiled(graph, compile, planned)


def diagnose(draws: Tensor, superchain_size: int) -> dict[str, Tensor]:
    """Return R-hat and effective sample size of every entry of a site."""
    draws = draws.double()
    return {"rhat": nested_rhat(draws, superchain_size), "ess": min_ess(draws)}


def weaknesses(draws: Draws, num_draws: int, diagnostics: dict[str, dict[str, Tensor]]) -> tuple[str, ...]:
    """Return what makes the draws weaker than they look, each with what to do."""
    found = []
    if (divergences := int(draws.stats["diverging"].sum())) > 0:
        found.append(
            f"{divergences} of {draws.stats['diverging'].numel()} transitions diverged: parts of the "
            "posterior may be missing. Reparameterise (non-centred hierarchies) or give tighter priors."
        )
    rhat_site, rhat = extreme({name: values["rhat"] for name, values in diagnostics.items()}, largest=True)
    if rhat > MAX_RHAT:
        found.append(
            f"Nested R-hat of {rhat_site!r} is {rhat:.3f} (> {MAX_RHAT}): the chains disagree. "
            "Raise num_warmup, or look for several modes."
        )
    ess_site, ess = extreme({name: values["ess"] for name, values in diagnostics.items()}, largest=False)
    if ess < MIN_ESS:
        found.append(
            f"The effective sample size of {ess_site!r} is {ess:.0f} (< {MIN_ESS}): intervals are rough. "
            "Raise num_draws."
        )
    if (made := draws.position.shape[1]) < num_draws:
        found.append(f"Interrupted after {made} of {num_draws} draws a chain. Fit again for the full number.")
    return tuple(found)


def extreme(values: dict[str, Tensor], *, largest: bool) -> tuple[str, float]:
    """Return the site with the largest (or smallest) entry, and that entry; constants, NaN, do not count."""
    sign = 1 if largest else -1
    signed = {name: (sign * v[~v.isnan()]).max() for name, v in values.items() if not v.isnan().all()}
    name = max(signed, key=lambda key: float(signed[key]), default="")
    return name, sign * float(signed[name]) if name else float("nan")
