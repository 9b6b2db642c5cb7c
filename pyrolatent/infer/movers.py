"""How chains move: what a sampler asks of a kernel, and the kernel of Hamiltonian Monte Carlo.

Every process draws the random numbers of all chains and takes its own, so that no two chains share
some, however many processes there are.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from pyrolatent.infer.tuning import Tuned
from pyrolatent.kernels.adaptation import MAX_STEPS, PATH_JITTER
from pyrolatent.kernels.chees import PathAscent
from pyrolatent.kernels.hmc import HMCInfo, HMCState, transition
from pyrolatent.kernels.leapfrog import Step
from pyrolatent.kernels.nuts import NUTSInfo
from pyrolatent.ranks import Ranks

EARLY_STEPS = 64  # leapfrog steps at most while chains are still on their way


class Moved(NamedTuple):
    """Chains after a transition, and its statistics `(B,)` under ArviZ's names."""

    tuned: Tuned
    stats: dict[str, Tensor]


class Mover(Protocol):
    """One transition of all chains."""

    @property
    def target_acceptance(self) -> float:
        """The acceptance rate that the step size is tuned to."""

    @property
    def strict_acceptance(self) -> float:
        """The same where the posterior turns out to be stiff."""

    @property
    def max_steps(self) -> int:
        """Leapfrog steps after which a transition is cut."""

    @property
    def learns_path(self) -> bool:
        """True where the path is learnt by gradient ascent, and not by the path rule."""

    def __call__(self, tuned: Tuned, noise: "Noise", early: bool) -> Moved:
        """Return the chains after one transition; `early` ones in a warm-up are kept short."""


@final
@dataclass(frozen=True)
class Noise:
    """The random numbers of all chains, of which this process gets its share."""

    random: torch.Generator
    ranks: Ranks

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape `(B, D)` of this process's chains."""
        size = (len(like) * self.ranks.size, *like.shape[1:])
        return self.ranks.share(
            torch.randn(size, generator=self.random, dtype=like.dtype, device=like.device)
        )

    def uniform(self, like: Tensor) -> Tensor:
        """Return uniform numbers `(B,)`."""
        size = len(like) * self.ranks.size
        whole = torch.rand(size, generator=self.random, dtype=like.dtype, device=like.device)
        return self.ranks.share(whole)

    def number(self) -> float:
        """Return one uniform number, the same in all processes."""
        return float(torch.rand((), generator=self.random, device=self.random.device))

    def own(self) -> torch.Generator:
        """Return a stream of this process's own, for as many numbers as it may need."""
        options = {"generator": self.random, "device": self.random.device}
        seeds = torch.randint(2**62, (self.ranks.size,), **options)  # type: ignore[call-overload]
        own = torch.Generator(device=self.random.device)
        return own.manual_seed(int(seeds[self.ranks.rank]))


@final
@dataclass(frozen=True)
class Trajectories:
    """Hamiltonian Monte Carlo: all chains take equally many steps, a number jittered around the path."""

    step: Step
    learns_path: bool = False
    target_acceptance: float = 0.8
    strict_acceptance: float = 0.95
    max_steps: int = MAX_STEPS

    def __call__(self, tuned: Tuned, noise: Noise, early: bool) -> Moved:
        state = tuned.state
        low, high = PATH_JITTER
        jitter = low + (high - low) * noise.number()
        step_size = tuned.step_size.expand(len(state.position))
        num_steps = round(tuned.path * jitter / float(noise.ranks.gather(step_size).median()))
        num_steps = min(max(num_steps, 1), EARLY_STEPS if early else self.max_steps)
        drawn = noise.normal(state.position), noise.uniform(state.log_density)
        after, info = transition(self.step, state, tuned.metric, step_size[:, None], num_steps, *drawn)
        steps = torch.full_like(after.log_density, num_steps, dtype=torch.int64)
        stats = statistics(after, info, step_size, steps)
        moved = replace(tuned, state=after)
        if tuned.ascent is not None:
            ascent = tuned.ascent.update(state, info, tuned.metric, num_steps * step_size)
            moved = with_path(moved, ascent, noise.ranks)
        return Moved(moved, stats)


def statistics(
    state: HMCState, info: HMCInfo | NUTSInfo, step_size: Tensor, num_steps: Tensor
) -> dict[str, Tensor]:
    """Return what all kernels tell of a transition, `(B,)` each, under ArviZ's names."""
    return {
        "lp": state.log_density,
        "energy": info.energy,
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.diverging,
        "step_size": step_size,
        "n_steps": num_steps,
    }


def with_path(tuned: Tuned, ascent: PathAscent, ranks: Ranks) -> Tuned:
    """Return the tuning with a path that all processes agree on."""
    parts = ascent.log_path, ascent.square, ascent.log_average
    log_path, square, log_average = (ranks.mean(part) for part in parts)
    pooled = replace(ascent, log_path=log_path, square=square, log_average=log_average)
    return replace(tuned, ascent=pooled, path=float(pooled.path))


def kept_path(tuned: Tuned) -> Tuned:
    """Return the tuning at the end of the warm-up, when a path that was learnt is averaged."""
    if tuned.ascent is None:
        return tuned
    return replace(tuned, path=float(tuned.ascent.average_path), ascent=None)
