"""Hamiltonian Monte Carlo as a method: settings in, a judged fit out."""

from dataclasses import dataclass, replace
from typing import Literal, final, get_args

import torch

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.density import LogDensity
from pyrolatent.errors import ArgumentError
from pyrolatent.infer.chains import MANY_CHAINS, check_shares, run_chains, superchains
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.movers import Trajectories
from pyrolatent.infer.sampler import Plan
from pyrolatent.infer.speed import compiled, default_chains
from pyrolatent.infer.start import ADAM_STEPS, MAX_ASCENT, learnt
from pyrolatent.infer.tuning import flat_covariance
from pyrolatent.kernels.leapfrog import density_of, leapfrog_step
from pyrolatent.result import Compile, Fit, Problem

PLANNED_STEPS = 8  # leapfrog steps a transition is expected to take
# That learn together: a warm-up of 50 mixed as well as one of 100 on 26 models, but met the narrow places of
# a stiff hierarchy too seldom to shorten its steps; 75 met them, and did as well on the 12 it was tried on.
CROWD = 64  # chains
BUDGET = 10  # times the default number of draws, which a run with a target may use

Path = Literal["rule", "chees"]


@final
@dataclass(frozen=True)
class HMC(Method):
    """Settings of Hamiltonian Monte Carlo.

    Args:
        num_chains: By default 64 where all chains run in one graph, else 4, and fewer where
            chains times rows would exceed 4 GiB.
        num_warmup: Transitions that tune and are dropped; by default 75 for 64 or more chains,
            100 for 16 or more, else 500.
        num_draws: Draws kept of each chain; by default 150 for 16 or more chains, else 1,000, and ten
            times as many at most with `target_ess`.
        target_ess: Stop as soon as every entry of every site, and of the unconstrained latents, has this
            effective sample size and nested R-hat is below 1.01.  Looked at every 50 draws a chain, from
            100 on, and later after each tenth more.
        path: How the length of trajectories is found: "rule" takes 1.5 standard deviations of the
            widest direction, "chees" climbs the criterion of Hoffman, Radul and Sountsov (2021).

    Raises:
        ArgumentError: A number is too small to mean anything, or there is no such path.
    """

    num_chains: int | None = None
    num_warmup: int | None = None
    num_draws: int | None = None
    target_ess: int | None = None
    path: Path = "rule"

    def __post_init__(self) -> None:
        check_least("num_chains", self.num_chains, 1)
        check_least("num_warmup", self.num_warmup, 20)
        check_least("num_draws", self.num_draws, 10)
        check_least("target_ess", self.target_ess, 1)
        if self.path not in get_args(Path):
            why = f"got {self.path!r}"
            raise ArgumentError("path is unknown", why=why, remedy="choose 'rule' or 'chees'")

    def run(self, problem: Problem) -> Fit:
        clock, known = Clock(), learnt(problem)
        density = known.density
        method, plan = self.resolved(density)
        check_shares(problem, plan)
        with density.context(), torch.no_grad():
            draws = plan.num_draws // (1 if self.target_ess is None else BUDGET)
            planned = ADAM_STEPS + MAX_ASCENT + PLANNED_STEPS * (plan.num_warmup + draws)
            own = plan.num_chains // problem.ranks.size
            graph = leapfrog_graph(density, own, problem.compile, planned)
            step = graph or leapfrog_step(density.batched)
            mover = Trajectories(step, learns_path=self.path == "chees")
            evaluate = density_of(step, flat_covariance(density))
            clock.lap("capture")
            return run_chains(problem, known, method, plan, mover, evaluate, graph, clock, self.target_ess)

    def resolved(self, density: LogDensity) -> "tuple[HMC, Plan]":
        """Return the settings with every default filled in, and the plan that they make."""
        chains = self.num_chains or default_chains(density)
        many = chains >= MANY_CHAINS
        num_warmup = self.num_warmup or (500 if not many else 100 if chains < CROWD else 75)
        usual = (150 if many else 1_000) * (1 if self.target_ess is None else BUDGET)
        plan = Plan(chains, superchains(chains), num_warmup, self.num_draws or usual)
        settings = {"num_chains": chains, "num_warmup": num_warmup, "num_draws": plan.num_draws}
        return replace(self, **settings), plan  # type: ignore[arg-type]


def leapfrog_graph(density: LogDensity, num_chains: int, compile: Compile, planned: int) -> Graph | None:
    """Return one leapfrog step of all chains as a graph, or None where they run one by one."""
    if not density.batched.vectorised:
        return None
    position = torch.linspace(-1, 1, num_chains * density.dim).view(num_chains, density.dim)
    example = position, position.clone(), torch.ones(num_chains, 1), flat_covariance(density)
    graph = compiled(capture(leapfrog_step(density.batched.function), *example), compile, planned)
    graph(*example)  # a compiled one is made, and checked, at its first call
    return graph
