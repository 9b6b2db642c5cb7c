"""Many chains of Hamiltonian Monte Carlo on one captured density: warm-up and draws.

Warm-up learns step size, metric and path length from all chains together.  The mean path is 1.5
standard deviations of the widest direction after whitening by the metric (the path rule); each
trajectory's length is jittered, since fixed lengths resonate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from pyrolatent.capture.density import LogDensity
from pyrolatent.infer.start import descend, starting_points
from pyrolatent.kernels.adaptation import (
    MAX_STEPS,
    PATH_FACTOR,
    PATH_JITTER,
    curvature_metric,
    dual_averaging,
    path_length,
    pooled_covariance,
)
from pyrolatent.kernels.hmc import HMCInfo, HMCState, Metric, metric, start, transition
from pyrolatent.kernels.leapfrog import Step

TARGET_ACCEPTANCE = 0.9
REFRESH = (0.1, 0.25, 0.5, 0.8)  # parts of the warm-up after which metric and path are learnt anew
EARLY_STEPS = 64  # leapfrog steps at most while chains are still on their way


@final
@dataclass(frozen=True)
class Tuned:
    """Where the chains are and how they move."""

    state: HMCState
    metric: Metric
    step_size: Tensor  # (B,) early in the warm-up, then ()
    path: float


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

    def warm_up(self, num_chains: int, superchain_size: int, num_warmup: int) -> Tuned:
        """Return chains that have found the posterior, and their tuning.

        In the first half each chain has a step size of its own, so that one in a steep place can
        leave it without slowing the others down; then they share one.
        """
        tuned = self.first_tuning(num_chains, superchain_size)
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
                tuned, window = refresh(tuned, arrived(window)), []
                adaptation = dual_averaging(adaptation.step_size)
            tuned = replace(tuned, step_size=adaptation.step_size)
            num_divergences += int(info.diverging.sum())
            self.report("warm-up", num_divergences, tuned)
        return replace(tuned, step_size=adaptation.average_step_size)

    def first_tuning(self, num_chains: int, superchain_size: int) -> Tuned:
        """Descend from random points and take the metric from the curvature there."""
        position = starting_points(self.density, num_chains, superchain_size, self.random)
        position = descend(self.density, position)
        first = curvature_metric(self.density.batched, position)
        state = start(self.density.batched, position)
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


def refresh(tuned: Tuned, draws: Tensor) -> Tuned:
    """Return the tuning with metric and path learnt from the pooled `draws (S, D)`."""
    learnt = metric(pooled_covariance(draws))
    return replace(tuned, metric=learnt, path=path_length(draws, learnt))


def arrived(window: list[HMCState]) -> Tensor:
    """Return the positions `(S, D)` of chains that have arrived where the best chain is.

    The log density of D dimensions varies by about sqrt(D / 2); a chain whose mean lies very far
    below the best is on its way, and would stretch the metric of all.
    """
    log_density = torch.stack([state.log_density for state in window]).mean(0)
    near = log_density > log_density.max() - 20 - 10 * math.sqrt(window[0].position.shape[1])
    return torch.cat([state.position[near] for state in window])


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
