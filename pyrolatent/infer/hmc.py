"""Hamiltonian Monte Carlo as a method: settings in, a judged fit out.

Chains of one superchain start at one point, so that nested R-hat (Margossian et al. 2024) can
judge many short chains.
"""

import time
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.compile import Graph, capture, has_compiler, worth_compiling
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.diagnostics import min_ess, nested_rhat
from pyrolatent.errors import ArgumentError
from pyrolatent.infer.method import Method
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.sampler import Draws, Sampler, flat_covariance
from pyrolatent.infer.start import ADAM_STEPS, MAX_ASCENT, learnt, starting_draws
from pyrolatent.kernels.leapfrog import leapfrog_step
from pyrolatent.result import Compile, Fit, Problem
from pyrolatent.seeds import generator

SUPERCHAIN_SIZE = 4
MANY_CHAINS = 16
MAX_BYTES = 4 * 2**30  # of all chains' copies of the rows
COPIES = 16  # of an observed site that its density makes on the way
PLANNED_STEPS = 8  # leapfrog steps a transition is expected to take
MAX_RHAT = 1.01
MIN_ESS = 400


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
        least = {"num_chains": 1, "num_warmup": 20, "num_draws": 10}
        given = {"num_chains": self.num_chains, "num_warmup": self.num_warmup, "num_draws": self.num_draws}
        for name, value in given.items():
            if value is not None and value < least[name]:
                raise ArgumentError(
                    f"{name} is too small", why=f"got {value}", remedy=f"give at least {least[name]}"
                )

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        model, parameters, params, state = learnt(problem)
        density = capture_density(
            model, problem.data, seed=problem.seed, dtype=problem.dtype, device=problem.device
        )
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
        samples = named_samples(density, draws.position, problem.seed)
        diagnostics = {name: diagnose(values, superchain) for name, values in samples.items()}
        clock.lap("diagnostics")
        slow = slowness(density, problem.compile)
        info = {
            "rung": density.rung,
            "reason": density.batched.reason,
            "num_ops": graph.num_ops if graph else None,
            "compiled": graph.compiled if graph else False,
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


class Clock:
    """Seconds of each stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.last = now - self.last, now


def default_chains(density: LogDensity) -> int:
    """64 in one graph, 4 on slower rungs, fewer where the rows of all chains would not fit."""
    if not density.batched.vectorised:
        return 4
    sites = density.sites
    cells = max(
        (site.shape.numel() for name, site in sites.observed.items() if name not in sites.summaries),
        default=1,
    )
    cells = max(cells, density.largest_table)
    fitting = MAX_BYTES // (cells * density.dtype.itemsize * COPIES)
    return next((chains for chains in (64, 16) if chains <= fitting), 4)


def leapfrog_graph(density: LogDensity, num_chains: int, compile: Compile, planned: int) -> Graph | None:
    """Return one leapfrog step of all chains as a graph, or None where they run one by one."""
    if not density.batched.vectorised:
        return None
    position = torch.zeros(num_chains, density.dim)
    step = leapfrog_step(density.batched.function)
    graph = capture(step, position, position.clone(), torch.ones(num_chains, 1), flat_covariance(density))
    wanted = worth_compiling(graph.num_ops, planned) if compile == "auto" else compile
    return graph.compile() if wanted and has_compiler() else graph


def named_samples(density: LogDensity, position: Tensor, seed: int) -> dict[str, Tensor]:
    """Return latent and deterministic sites `(chain, draw, *site)` of `position (chain, draw, D)`."""
    flat = position.flatten(0, 1).to(density.device)
    discrete = density.discrete(flat, generator(seed, "discrete", device=density.device))
    sites = density.constrain(flat, discrete)
    return {name: values.cpu().unflatten(0, position.shape[:2]) for name, values in sites.items()}


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


def slowness(density: LogDensity, compile: Compile) -> tuple[str, ...]:
    """Return why a fit ran slower than it could have, each with what to do."""
    found = []
    if not density.batched.vectorised:
        found.append(
            f"The model ran at points one by one, which is slow ({density.batched.reason}). Write it without "
            "assignments into tensors and without Python control flow on latent values."
        )
    if compile is True and not has_compiler():
        found.append(
            "No C++ compiler was found, so the fit ran uncompiled. Install g++ or pass compile='auto'."
        )
    return tuple(found)
