"""A moment between two training steps: all that the next one depends on."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.ranks import Ranks

SMOOTHING = 0.7  # of the loss, from check to check


@final
@dataclass
class Watch:
    """Keeps the last good state, and the best of each refit where training may stop early.

    Attributes:
        good: Parameters `(R, P)` at the last check.
        best: Those of the lowest smoothed loss.
        lowest: That loss `(R,)`.
        waited: Checks since `(R,)`.
        smooth: The smoothed loss `(R,)`; None before the first check.
    """

    good: Tensor
    best: Tensor
    lowest: Tensor
    waited: Tensor
    smooth: Tensor | None = None

    def see(self, flat: Tensor, loss: Tensor, patience: int | None) -> bool:
        """Take note of parameters `(R, P)` and their loss `(R,)`; return whether to stop."""
        self.good = flat.clone()
        self.smooth = loss if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * loss
        better = self.smooth < self.lowest
        self.best = torch.where(better[:, None], flat, self.best)
        self.lowest = torch.where(better, self.smooth, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        return patience is not None and bool((self.waited >= patience).all())


@final
@dataclass(frozen=True)
class Moment:
    """All that the next step depends on, besides what is fitted.

    Attributes:
        done: Steps taken.
        stopped: Whether there is no next one.
        flat: Parameters `(R, P)`.
        typical: Typical norms of their gradients `(R,)`.
        optimizer: Its `state_dict`.
        watch: Of the checks.
        held_out: Losses of held-out rows `(R,)`, check by check.
        batches: Of the stream of batches.
        random: State of torch's own streams, `(process, bytes)` each.
    """

    done: int
    stopped: bool
    flat: Tensor
    typical: Tensor
    optimizer: dict[str, Any]
    watch: Watch
    held_out: list[Tensor]
    batches: dict[str, Any]
    random: list[Tensor]


def random_states(like: Tensor, ranks: Ranks) -> list[Tensor]:
    """Return the state of torch's own streams in every process, `(process, bytes)` each."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(like.device)] if like.is_cuda else [])
    return [ranks.gather(state[None].to(like.device)).cpu() for state in states]


def restore_random(states: list[Tensor], like: Tensor, ranks: Ranks) -> None:
    """Put torch's own streams in this process back into their states."""
    own = [state[ranks.rank].clone() for state in states]  # torch reads a view from where its storage begins
    torch.set_rng_state(own[0])
    if like.is_cuda:
        torch.cuda.set_rng_state(own[1], like.device)
