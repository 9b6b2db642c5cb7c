"""Optimisers of `torch.optim` on one flat vector: how long they run, how fast, and how they are kept."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.errors import ArgumentError
from pyrolatent.snapshots import flatten

CHECKS = 100  # of a run
WARM_UP = 0.05  # part of the steps over which the learning rate rises


@final
@dataclass(frozen=True)
class Schedule:
    """How long to train, how fast, and when to stop early."""

    num_steps: int
    lr: float
    patience: int | None
    optimizer: Callable[..., torch.optim.Optimizer]

    @property
    def every(self) -> int:
        """Steps from check to check."""
        return max(1, self.num_steps // CHECKS)


def rate(step: int, num_steps: int) -> float:
    """Return the learning rate over its highest: a linear rise, then a cosine to zero."""
    rise = max(1, round(WARM_UP * num_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))


def made(schedule: Schedule, free: Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of `free (R, P)`, in one kernel where it comes with one."""
    options = inspect.signature(schedule.optimizer).parameters
    unset = all(options[name].default is None for name in ("fused", "foreach") if name in options)
    fused = {"fused": True} if "fused" in options and unset else {}
    return schedule.optimizer([free], lr=schedule.lr, **fused)


def check_optimizer(schedule: Schedule, free: Tensor) -> None:
    """Try one step of no length from `free (R, P)`.

    Raises:
        ArgumentError: The optimiser cannot be made or kept, or does not step along a given gradient.
    """
    try:
        free.grad = torch.zeros_like(free)
        optimizer = made(schedule, free)
        optimizer.step()
        flatten(optimizer.state_dict(), {})
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ArgumentError(
            "the optimizer takes no gradient steps",
            why=f"{schedule.optimizer}: {error}",
            remedy="pass a class such as torch.optim.Adam or a functools.partial of one, which is called as "
            "optimizer([flat], lr=lr) and steps without evaluating the loss again",
        ) from error


def restore(optimizer: torch.optim.Optimizer, free: Tensor, kept: dict[str, Any]) -> None:
    """Put an optimiser of `free (R, P)` back into the state that it was kept in."""
    optimizer.load_state_dict(kept)
    optimizer.state[free].update(kept["state"].get(0, {}))  # which loading may have cast
