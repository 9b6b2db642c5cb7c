"""Many chains of Hamiltonian Monte Carlo on one captured density: warm-up and draws.

Warm-up learns step size, metric and path length from all chains together.  The mean path is 1.5
standard deviations of the widest direction after whitening by the metric (the path rule); each
trajectory's length is jittered, since fixed lengths resonate.
"""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from pyrolatent.capture.density import LogDensity
from pyrolatent.infer.start import ascend, begin_at, starting_points
from pyrolatent.kernels.adaptation import (
    MAX_DENSE,
    MAX_STEPS,
    PATH_FACTOR,
    PATH_JITTER,
    dual_averaging,
    path_length,
    pooled_covariance,
)
from pyrolatent.kernels.hmc import HMCInfo, HMCState, Metric, metric, start, transition
from pyrolatent.kernels.leapfrog import Step, density_of

TARGET_ACCEPTANCE = 0.9
REFRESH = (0.1, 0.25, 0.5, 0.8)  # parts of the warm-up after which metric and path are learnt anew
EARLY_STEPS = 64  # leapfrog steps at most while chains are still on their way
NEGLIGIBLE = 30.0  # nats, besides one for each dimension, below which a neighbourhood does not count


@final
@dataclass(frozen=True)
class Tuned:
    """Where the chains are and how they move."""

    state: HMCState
    metric: Metric
    step_size: Tensor  # (B,) early in the warm-up, then ()
    path: float
    restarts: int = 0  # lost chains moved to where others are, so far


@final
@dataclass(frozen=True)
class Draws:
    """Positions `(chain, draw, D)` and statistics `(chain, draw)`, on the host."""

    position: Tensor
    stats: dict[str, Tensor]


@final
@dataclass(frozen=True)
class Sampler:
    """What stays fixed during a run: the density, its captured leapfrog step, the random stream."""

    density: LogDensity
    step: Step
    random: torch.Generator
    bar: "tqdm[None]"

    def warm_up(
        self, num_chains: int, superchain_size: int, num_warmup: int, start: Tensor | None = None
    ) -> Tuned:
        """Return chains that have found the posterior, and their tuning.

        In the first half each chain has a step size of its own, so that one in a steep place can
        leave it without slowing the others down; then they share one.  Whenever metric and path are
        learnt anew, chains that are lost restart from where others are.  `start (S, D)` are draws to
        begin at.
        """
        tuned = self.first_tuning(num_chains, superchain_size, start)
        adaptation = dual_averaging(tuned.step_size)
        refreshes = {round(part * num_warmup) for part in REFRESH}
        window: list[HMCState] = []
        num_divergences = 0
        for iteration in range(1, num_warmup + 1):
            early = iteration < num_warmup // 2
            tuned, info, _ = self.move(tuned, EARLY_STEPS if early else MAX_STEPS)
            rate = info.acceptance_rate if early else info.acceptance_rate.mean()
            if iteration == num_warmup // 2:
                adaptation = dual_averaging(adaptation.step_size.median())
            adaptation = adaptation.update(rate, TARGET_ACCEPTANCE)
            window.append(tuned.state)
            if iteration in refreshes:
                astray = lost(window)
                tuned = refresh(tuned, torch.cat([state.position[~astray] for state in window]))
                tuned = restart(tuned, astray, self.random)
                adaptation, window = dual_averaging(adaptation.step_size), []
            tuned = replace(tuned, step_size=adaptation.step_size)
            num_divergences += int(info.diverging.sum())
            self.report("warm-up", num_divergences, tuned)
        return replace(tuned, step_size=adaptation.average_step_size)

    def first_tuning(self, num_chains: int, superchain_size: int, draws: Tensor | None = None) -> Tuned:
        """Ascend from random points and take the metric from the curvature there, or both from `draws`."""
        flat = flat_covariance(self.density)
        evaluate = density_of(self.step, flat)
        if draws is None:
            position = starting_points(self.density, evaluate, num_chains, superchain_size, self.random)
            position, first = ascend(evaluate, position, superchain_size)
        else:
            position, first = begin_at(evaluate, draws, num_chains, superchain_size, flat)
        state = start(evaluate, position)
        return Tuned(state, first, torch.full_like(state.log_density, self.density.dim**-0.25), PATH_FACTOR)

    def move(self, tuned: Tuned, max_steps: int = MAX_STEPS) -> tuple[Tuned, HMCInfo, int]:
        """Return the chains after one transition, what happened, and its number of leapfrog steps."""
        position = tuned.state.position
        options: dict[str, Any] = {
            "generator": self.random,
            "dtype": position.dtype,
            "device": position.device,
        }
        low, high = PATH_JITTER
        jitter = low + (high - low) * float(torch.rand((), **options))
        num_steps = min(max(round(tuned.path * jitter / float(tuned.step_size.median())), 1), max_steps)
        noise, uniform = torch.randn(position.shape, **options), torch.rand(len(position), **options)
        step_size = tuned.step_size.expand(len(position))[:, None]
        state, info = transition(self.step, tuned.state, tuned.metric, step_size, num_steps, noise, uniform)
        return replace(tuned, state=state), info, num_steps

    def draw(self, tuned: Tuned, num_draws: int) -> Draws:
        """Return `num_draws` draws of each chain, or those made before the user interrupted."""
        positions: list[Tensor] = []
        stats: list[dict[str, Tensor]] = []
        num_divergences = 0
        try:
            for _ in range(num_draws):
                tuned, info, num_steps = self.move(tuned)
                stats.append(statistics(tuned, info, num_steps))
                positions.append(tuned.state.position.cpu())
                num_divergences += int(info.diverging.sum())
                self.report("draws", num_divergences, tuned)
        except KeyboardInterrupt:
            if not positions:
                raise
        kept = stats[: len(positions)]
        return Draws(
            torch.stack(positions, 1), {name: torch.stack([row[name] for row in kept], 1) for name in kept[0]}
        )

    def report(self, stage: str, num_divergences: int, tuned: Tuned) -> None:
        step_size = f"{float(tuned.step_size.median()):.3g}"
        self.bar.set_postfix(stage=stage, divergences=num_divergences, step_size=step_size, refresh=False)
        self.bar.update()


def flat_covariance(density: LogDensity) -> Tensor:
    """Return a covariance of scale 1, dense or diagonal as the metric of this density will be."""
    ones = torch.ones(density.dim, dtype=density.dtype, device=density.device)
    return torch.diag(ones) if density.dim <= MAX_DENSE else ones


def refresh(tuned: Tuned, draws: Tensor) -> Tuned:
    """Return the tuning with metric and path learnt from the pooled `draws (S, D)`."""
    learnt = metric(pooled_covariance(draws, tuned.metric.covariance))
    return replace(tuned, metric=learnt, path=path_length(draws, learnt))


def lost(window: list[HMCState]) -> Tensor:
    """Return which chains `(B,)` are where next to nothing of the posterior is.

    The mean log density of a chain's draws plus the entropy of a normal with their variances
    estimates how much of the posterior its neighbourhood holds.  A separate mode that matters lies
    within some nats of the best; a chain on its way, or one that cannot move, far below.
    """
    position = torch.stack([state.position for state in window])
    log_density = torch.stack([state.log_density for state in window]).mean(0)
    share = (log_density + position.std(0).log().sum(-1)).nan_to_num(nan=-torch.inf)
    return share < share.max() - NEGLIGIBLE - position.shape[-1]


def restart(tuned: Tuned, lost: Tensor, random: torch.Generator) -> Tuned:
    """Return the chains with lost ones moved to where others, picked at random, are."""
    found = (~lost).nonzero().flatten()
    picks = torch.randint(len(found), lost.shape, generator=random, device=lost.device)
    source = torch.where(lost, found[picks], torch.arange(len(lost), device=lost.device))
    state = HMCState(*(field[source] for field in tuned.state))
    return replace(tuned, state=state, restarts=tuned.restarts + int(lost.sum()))


def statistics(tuned: Tuned, info: HMCInfo, num_steps: int) -> dict[str, Tensor]:
    """Return one transition's statistics `(chain,)` under ArviZ's names."""
    lp = tuned.state.log_density
    columns = {
        "lp": lp,
        "energy": info.energy,
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.diverging,
        "step_size": tuned.step_size.expand(len(lp)),
        "n_steps": torch.full_like(lp, num_steps, dtype=torch.int64),
    }
    return {name: column.cpu() for name, column in columns.items()}
