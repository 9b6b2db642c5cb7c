"""The training loop: gradient steps on flat parameter vectors of all refits side by side.

The loop synchronises with the device only at its checks, of which a run has about a hundred.
A gradient longer than ten times the typical one is shortened to that, and one that is not finite
counts as zero until the next check, where training stops and goes back to the last good state.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.func import vmap
from tqdm import tqdm

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.objective import ObjectiveGradient
from pyrolatent.errors import ArgumentError

CHECKS = 100
CLIP = 10.0  # times the typical norm, beyond which a gradient is shortened
MEMORY = 0.95  # of the typical norm, from step to step
SMOOTHING = 0.7  # of the loss, from check to check
WARM_UP = 0.05  # part of the steps over which the learning rate rises

# Parameters (R, P), typical norms (R,), step () and rows (R, B, ...) each, to losses (R,), gradients (R, P)
# and typical norms (R,).
Step = Callable[..., tuple[Tensor, Tensor, Tensor]]


@final
@dataclass(frozen=True)
class Trained:
    """The end of a training run.

    Attributes:
        flat: Parameters `(R, P)`: the last ones, or the best ones where training could stop early.
        train: Loss `(R, step)` in nats.
        validation: Loss of held-out rows `(R, check)`; empty without.
        failed_at: The step at which the loss was not finite, if it ever was.
        failed_flat: The parameters near it `(P,)`.
    """

    flat: Tensor
    train: Tensor
    validation: Tensor
    failed_at: int | None = None
    failed_flat: Tensor | None = None


def guarded(loss: Tensor, gradient: Tensor, typical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss `()`, the gradient `(P,)` to step along and the typical norm `()` after it."""
    finite = loss.isfinite() & gradient.isfinite().all()
    kept = torch.where(finite, gradient, 0.0)
    norm = torch.linalg.vector_norm(kept)
    limit = torch.where(typical > 0, CLIP * typical, norm)
    shortened = kept * (limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
    after = torch.where(typical > 0, MEMORY * typical + (1 - MEMORY) * torch.minimum(norm, limit), norm)
    return loss, shortened, after


def step_graph(gradient: ObjectiveGradient, inputs: list[Tensor]) -> Graph | None:
    """Return the step of all refits as one graph, or None where the objective was not captured.

    Args:
        gradient: The captured objective.
        inputs: An example of what the graph will be called with.
    """
    if gradient.noisy is None:
        return None
    module, num_rows = gradient.noisy.graph.module, len(gradient.names)

    def one(flat: Tensor, typical: Tensor, step: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        loss, slope = module(flat, step, *rest)
        return guarded(loss, slope, typical)

    def single(flat: Tensor, typical: Tensor, step: Tensor, *rest: Tensor) -> list[Tensor]:
        batch = [value[0] for value in rest[:num_rows]]
        return [part[None] for part in one(flat[0], typical[0], step, *batch, *rest[num_rows:])]

    if len(inputs[0]) == 1:
        return capture(single, *inputs)
    axes = (0, 0, None) + (0,) * (len(inputs) - 3)
    return capture(vmap(one, in_dims=axes, randomness="different"), *inputs)


def with_noise(graph: Graph, draw: Callable[[], list[Tensor]]) -> Step:
    """Return the step that draws its noise before it runs the graph."""
    return lambda *inputs: graph(*inputs, *draw())


def eager_step(gradient: ObjectiveGradient) -> Step:
    """Return the step of all refits, one after the other in plain Pyro."""

    def step(flat: Tensor, typical: Tensor, time: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [
            guarded(*gradient.evaluate(flat[r], time, *(value[r] for value in rows)), typical[r])
            for r in range(len(flat))
        ]
        loss, gradients, norms = (torch.stack(parts) for parts in zip(*found, strict=True))
        return loss, gradients, norms

    return step


def rate(step: int, num_steps: int) -> float:
    """Return the learning rate over its highest: a linear rise, then a cosine to zero."""
    rise = max(1, round(WARM_UP * num_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))


@final
@dataclass(frozen=True)
class Schedule:
    """How long to train, how fast, and when to stop early."""

    num_steps: int
    lr: float
    patience: int | None
    optimizer: Callable[..., torch.optim.Optimizer]


def train(
    step: Step,
    flat: Tensor,
    batches: Iterator[list[Tensor]],
    schedule: Schedule,
    validate: Callable[[Tensor], Tensor] | None,
    bar: "tqdm[None]",
) -> Trained:
    """Take gradient steps from `flat (R, P)`.

    Args:
        step: Loss, gradient and typical norm of all refits.
        flat: Where to begin.
        batches: Yields the rows of each step.
        schedule: Steps, learning rate, patience and optimiser.
        validate: From parameters `(R, P)` to the loss of held-out rows `(R,)`.
        bar: Progress.
    """
    num_steps = schedule.num_steps
    every = max(1, num_steps // CHECKS)
    free = flat.clone().requires_grad_()
    optimizer = made(schedule, free)
    typical = flat.new_zeros(len(flat))
    watch = Watch(flat.clone(), schedule.patience)
    losses: list[Tensor] = []
    held_out: list[Tensor] = []
    for times in torch.arange(num_steps, dtype=flat.dtype, device=flat.device).split(every):
        block: list[Tensor] = []
        for time in times.unbind():
            now = free.detach()
            loss, free.grad, typical = step(now, typical, time, *next(batches))
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * rate(len(losses) * every + len(block), num_steps)
            optimizer.step()
            block.append(loss)
        losses.append(torch.stack(block, 1))
        if not losses[-1].isfinite().all():
            train, flats = torch.cat(losses, 1), failing(losses[-1], now)
            bad = int((~train.isfinite().all(0)).nonzero()[0])
            return Trained(watch.good, train[:, :bad], joined(held_out, flat), bad, flats)
        if validate is not None:
            held_out.append(validate(now))
        bar.set_postfix(loss=f"{float(losses[-1].mean()):.5g}", refresh=False)
        bar.update(len(block))
        if watch.see(free.detach(), held_out[-1] if held_out else losses[-1].mean(1)):
            break
    return Trained(watch.result, torch.cat(losses, 1), joined(held_out, flat))


def made(schedule: Schedule, free: Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of `free (R, P)`, in one kernel where it comes with one."""
    options = inspect.signature(schedule.optimizer).parameters
    unset = all(options[name].default is None for name in ("fused", "foreach") if name in options)
    fused = {"fused": True} if "fused" in options and unset else {}
    return schedule.optimizer([free], lr=schedule.lr, **fused)


def check_optimizer(schedule: Schedule, free: Tensor) -> None:
    """Try one step of no length from `free (R, P)`.

    Raises:
        ArgumentError: The optimiser cannot be made, or does not step along a given gradient.
    """
    try:
        free.grad = torch.zeros_like(free)
        made(schedule, free).step()
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ArgumentError(
            "the optimizer takes no gradient steps",
            why=f"{schedule.optimizer}: {error}",
            remedy="pass a class such as torch.optim.Adam or a functools.partial of one, which is called as "
            "optimizer([flat], lr=lr) and steps without evaluating the loss again",
        ) from error


def failing(block: Tensor, flat: Tensor) -> Tensor:
    """Return the parameters `(P,)` of a refit whose losses `(R, step)` are not all finite."""
    return flat[int((~block.isfinite().all(1)).nonzero()[0])].clone()


def joined(checks: list[Tensor], like: Tensor) -> Tensor:
    """Return losses at checks as `(R, check)`."""
    return torch.stack(checks, 1) if checks else like.new_zeros(len(like), 0)


@final
class Watch:
    """Keeps the last good state, and the best of each refit where training may stop early."""

    def __init__(self, flat: Tensor, patience: int | None) -> None:
        self.good = flat
        self.best = flat.clone()
        self.patience = patience
        self.smooth: Tensor | None = None
        self.lowest = torch.full_like(flat[:, 0], torch.inf)
        self.waited = torch.zeros_like(self.lowest)

    @property
    def result(self) -> Tensor:
        return self.good if self.patience is None else self.best

    def see(self, flat: Tensor, loss: Tensor) -> bool:
        """Take note of parameters `(R, P)` and their loss `(R,)`; return whether to stop."""
        self.good = flat.clone()
        self.smooth = loss if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * loss
        better = self.smooth < self.lowest
        self.best = torch.where(better[:, None], flat, self.best)
        self.lowest = torch.where(better, self.smooth, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        return self.patience is not None and bool((self.waited >= self.patience).all())
