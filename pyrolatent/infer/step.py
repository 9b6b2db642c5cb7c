"""One training step up to the optimiser: loss and gradient of all refits, and how far to go along it.

A gradient longer than ten times the typical one is shortened to that, and one that is not finite
counts as zero.  In one process this is the end of the captured graph.  Of several, each has a share
of the rows of every batch; the mean of their losses and gradients, sent as one tensor, is that of the
whole batch, and from there on all do the same.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.objective import ObjectiveGradient
from pyrolatent.ranks import Ranks

CLIP = 10.0  # times the typical norm, beyond which a gradient is shortened
MEMORY = 0.95  # of the typical norm, from step to step

# Parameters (R, P), typical norms (R,), step () and rows (R, B, ...) each, to losses (R,), gradients (R, P)
# and typical norms (R,).
Step = Callable[..., tuple[Tensor, Tensor, Tensor]]


def guarded(loss: Tensor, gradient: Tensor, typical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses `(...)`, gradients `(..., P)` to step along and typical norms `(...)` after it."""
    finite = loss.isfinite() & gradient.isfinite().all(-1)
    kept = torch.where(finite[..., None], gradient, 0.0)
    norm = torch.linalg.vector_norm(kept, dim=-1)
    limit = torch.where(typical > 0, CLIP * typical, norm)
    factor = (limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
    after = torch.where(typical > 0, MEMORY * typical + (1 - MEMORY) * torch.minimum(norm, limit), norm)
    return loss, kept * factor[..., None], after


def step_graph(gradient: ObjectiveGradient, inputs: list[Tensor], *, alone: bool = True) -> Graph | None:
    """Return the step of all refits as one graph, or None where the objective was not captured.

    Args:
        gradient: The captured objective.
        inputs: An example of what the graph will be called with.
        alone: Whether one process does all the work; else the graph ends at losses and gradients.
    """
    if gradient.noisy is None:
        return None
    module, num_rows = gradient.noisy.graph.module, len(gradient.names)
    axes = (0, None) + (0,) * (len(inputs) - 3)
    of_all = vmap(module, in_dims=axes, randomness="different")

    def of_one(flat: Tensor, step: Tensor, *rest: Tensor) -> list[Tensor]:
        batch = [value[0] for value in rest[:num_rows]]
        return [part[None] for part in module(flat[0], step, *batch, *rest[num_rows:])]

    evaluate = of_one if len(inputs[0]) == 1 else of_all

    def step(flat: Tensor, typical: Tensor, time: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        loss, slope = evaluate(flat, time, *rest)
        return guarded(loss, slope, typical) if alone else (loss, slope)

    return capture(step, *inputs)


def with_noise(graph: Graph, draw: Callable[[], list[Tensor]]) -> Callable[..., Any]:
    """Return the step that draws its noise before it runs the graph."""
    return lambda *inputs: graph(*inputs, *draw())


def eager_step(gradient: ObjectiveGradient, *, alone: bool = True) -> Callable[..., Any]:
    """Return the step of all refits, one after the other in plain Pyro."""

    def step(flat: Tensor, typical: Tensor, time: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        found = [gradient.evaluate(flat[r], time, *(value[r] for value in rows)) for r in range(len(flat))]
        loss, slope = (torch.stack(parts) for parts in zip(*found, strict=True))
        return guarded(loss, slope, typical) if alone else (loss, slope)

    return step


def of_all_ranks(share: Callable[..., tuple[Tensor, Tensor]], guard: Graph, ranks: Ranks) -> Step:
    """Return the step of all processes, from the losses and gradients of this one's share of the rows."""

    def step(flat: Tensor, typical: Tensor, time: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, slope = share(flat, typical, time, *rows)
        mean = ranks.mean(torch.cat([loss[:, None], slope], 1))
        shortened: tuple[Tensor, Tensor, Tensor] = guard(mean[:, 0], mean[:, 1:], typical)
        return shortened

    return step
