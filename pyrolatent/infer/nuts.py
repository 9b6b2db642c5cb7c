"""The No-U-Turn sampler as a method: trajectories end where they would turn back."""

from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.density import LogDensity
from pyrolatent.infer.chains import check_shares, run_chains, superchains
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.method import Method, check_fraction, check_least
from pyrolatent.infer.movers import Moved, Noise, statistics
from pyrolatent.infer.sampler import Plan
from pyrolatent.infer.speed import compiled
from pyrolatent.infer.start import learnt
from pyrolatent.infer.tuning import Tuned, flat_covariance
from pyrolatent.kernels.nuts import Leaf, Merge, leaf_inputs, leaf_step, merge, merge_inputs, transition
from pyrolatent.result import Compile, Fit, Problem

PLANNED_STEPS = 16  # leaves a tree is expected to have
EARLY_DEPTH = 6  # of trees at most while chains are still on their way


@final
@dataclass(frozen=True)
class NUTS(Method):
    """Settings of the No-U-Turn sampler (Hoffman and Gelman 2014; Betancourt 2017).

    All chains build their trees side by side.  `HMC()` is the faster one where many chains run in one
    graph; a tree finds the length of each path anew, which serves posteriors whose scale differs from
    place to place.

    Args:
        num_chains: Chains.
        num_warmup: Transitions that tune and are dropped.
        num_draws: Draws kept of each chain.
        target_accept: Mean acceptance rate of a tree's points that the step size is tuned to.
        max_tree_depth: Doublings of a trajectory at most.

    Raises:
        ArgumentError: A number has no meaning.
    """

    num_chains: int = 4
    num_warmup: int = 1_000
    num_draws: int = 1_000
    target_accept: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        least = {"num_chains": 1, "num_warmup": 20, "num_draws": 10, "max_tree_depth": 1}
        for name, low in least.items():
            check_least(name, getattr(self, name), low)
        check_fraction("target_accept", self.target_accept)

    def run(self, problem: Problem) -> Fit:
        clock, known = Clock(), learnt(problem)
        density = known.density
        plan = Plan(self.num_chains, superchains(self.num_chains), self.num_warmup, self.num_draws)
        check_shares(problem, plan)
        with density.context(), torch.no_grad():
            planned = PLANNED_STEPS * (plan.num_warmup + plan.num_draws)
            own = plan.num_chains // problem.ranks.size
            position = torch.linspace(-1, 1, own * density.dim).view(own, density.dim)
            graph = leaf_graph(density, position, problem.compile, planned)
            trees = Trees(
                graph or leaf_step(density.batched),
                merge_graph(position, graph),
                self.target_accept,
                self.max_tree_depth,
            )
            evaluate = density.batched.graph(position) if graph else density.batched
            clock.lap("capture")
            return run_chains(problem, known, self, plan, trees, evaluate, graph, clock)


@final
@dataclass(frozen=True)
class Trees:
    """The kernel of the No-U-Turn sampler, with the leaf and the merge of trees as they run."""

    leaf: Leaf
    merge: Merge
    target_acceptance: float
    max_tree_depth: int
    learns_path: bool = False

    @property
    def strict_acceptance(self) -> float:
        return self.target_acceptance

    @property
    def max_steps(self) -> int:
        return 2**self.max_tree_depth - 1

    def __call__(self, tuned: Tuned, noise: Noise, early: bool) -> Moved:
        state = tuned.state
        step_size = tuned.step_size.expand(len(state.position))
        depth = min(self.max_tree_depth, EARLY_DEPTH) if early else self.max_tree_depth
        momentum = noise.normal(state.position)
        uniform = partial(torch.rand, len(step_size), generator=noise.own(), dtype=step_size.dtype,
                          device=step_size.device)  # fmt: skip
        after, info = transition(
            self.leaf, state, tuned.metric, step_size[:, None], depth, momentum, uniform, self.merge
        )
        stats = statistics(after, info, step_size, info.num_steps) | {"tree_depth": info.depth}
        return Moved(replace(tuned, state=after), stats)


def leaf_graph(density: LogDensity, position: Tensor, compile: Compile, planned: int) -> Graph | None:
    """Return one leaf of all trees as a graph, or None where chains run one by one."""
    if not density.batched.vectorised:
        return None
    example = leaf_inputs(position, flat_covariance(density))
    graph = compiled(capture(leaf_step(density.batched.function), *example), compile, planned)
    graph(*example)  # a compiled one is made, and checked, at its first call
    return graph


def merge_graph(position: Tensor, leaf: Graph | None) -> Merge:
    """Return what merges subtrees into trees, as a graph compiled where the leaf is."""
    if leaf is None:
        return merge
    graph = capture(merge, *merge_inputs(position))
    return graph.compile() if leaf.compiled else graph
