"""The ladder: the fastest way to run a density at many points that the model's code allows.

Rungs, from fast to slow; each gives the same numbers:

- `vmap`: all points in one captured graph of tensor operations.
- `shim`: the same, for code that writes in place (`capture.shim`).
- `points`: one captured graph, run point by point; for code that `vmap` refuses.
- `eager`: the Pyro code itself, point by point; for code whose course depends on latent values.

Code that reads a latent value into Python or NumPy must never be captured: the value of the
example would be baked in silently.  So a lower rung is tried only where the one above refused for a
reason known to be harmless, and `modes.ReadValues` watches while it is traced.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.shim import writable
from pyrolatent.capture.vector import stacked
from pyrolatent.errors import ModelError

Point = Callable[[Tensor], Tensor]
Rung = Literal["vmap", "shim", "points", "eager"]

# What `vmap` says where it refuses to write in place, or does not know an operation.
HARMLESS = (
    "is not possible because there exists a Tensor `other`",
    "inplace arithmetic",
    "in-place",
    "doesn't match the broadcast shape",
    "Batching rule not implemented",
)
# What it says of `x[mask] = 0`; but also where a shape follows from a mask, which only the shim's run tells.
MASKS = "indexing with a boolean mask"
# Rung -> why the one above it may have refused.
CAPTURED: dict[Rung, tuple[str, ...]] = {"vmap": (), "shim": (*HARMLESS, MASKS), "points": HARMLESS}
AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}  # relative, captured against eager
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError)  # raised for code not to be captured
MAX_POINTS = 128  # points in one vmapped run of uncaptured code


@final
@dataclass(frozen=True)
class Batched:
    """A density with its gradient at B points at once: `(B, D) -> (B,), (B, D)`."""

    point: Point
    rung: Rung
    reason: str = ""  # why no higher rung; empty on the top one
    graphs: dict[int, Graph] = field(default_factory=dict, repr=False)  # by B: sizes are baked in

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        if self.rung == "eager":
            return stacked([eager_value_and_gradient(self.point, flat) for flat in position])
        if self.rung == "points":
            return stacked([self.graph(flat)(flat) for flat in position])
        return self.graph(position)(position)

    @property
    def vectorised(self) -> bool:
        """True where all points run in one graph."""
        return is_vectorised(self.rung)

    def function(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """The same, not captured, for tracing into a larger graph where all points run in one."""
        point = writable(self.point) if self.rung == "shim" else self.point
        return vmap(value_and_gradient(point))(position)

    def graph(self, example: Tensor) -> Graph:
        """Return the captured graph for inputs of this shape, capturing it the first time."""
        size = len(example) if self.vectorised else 1
        if size not in self.graphs:
            function = self.function if self.vectorised else value_and_gradient(self.point)
            self.graphs[size] = capture(function, example)
        return self.graphs[size]


def climb(point: Point, plain: Point, examples: Tensor) -> Batched:
    """Return `point` on the highest rung that runs and agrees with `plain` at `examples (B, D)`.

    `plain` is the same density without any shortcut; it runs where nothing else does.

    Raises:
        ModelError: The density is random.
    """
    eager = Batched(plain, "eager")
    expected = eager(examples)
    if not agree(eager(examples), expected):
        raise ModelError(
            "the density of the model differs from call to call",
            why="something in it is drawn at random outside of pyro.sample, or hidden by poutine.block",
            remedy="draw it with pyro.sample, or once before the fit",
        )
    reason = refusal = ""
    for rung, harmless in CAPTURED.items():
        if refusal and not any(words in refusal for words in harmless):
            continue
        batched = Batched(point, rung, reason)
        try:
            found = batched(examples)
        except REFUSALS as error:
            reason, refusal = f"{rung}: {first_line(error)}", str(error)
            continue
        if agree(found, expected):
            return batched
        reason = refusal = f"{rung}: its numbers differ from eager ones"
    return replace(eager, reason=reason)


def is_vectorised(rung: Rung) -> bool:
    """True for the rungs on which all points run in one graph."""
    return rung in ("vmap", "shim")


def agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    """True where values and gradients are equal up to rounding."""
    return all(close(a, b) for a, b in zip(found, expected, strict=True))


def close(found: Tensor, expected: Tensor) -> bool:
    """True where two tensors are equal up to rounding."""
    tolerance = AGREEMENT[expected.dtype]
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def map_points(
    function: Callable[[Any], dict[str, Tensor]], points: Any, rung: Rung, at_once: int = MAX_POINTS
) -> dict[str, Tensor]:
    """Return `function` of each of `points (S, ...)`, stacked `(S, ...)`; no gradient, no capture.

    `points` is a tensor or a dictionary of them; so many run at once.
    """
    if is_vectorised(rung):
        return vmap(writable(function) if rung == "shim" else function, chunk_size=at_once)(points)
    if isinstance(points, dict):
        points = [dict(zip(points, row, strict=True)) for row in zip(*points.values(), strict=True)]
    return stacked([function(point) for point in points])


def value_and_gradient(point: Point) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the function of `(D,)` that gives the value `()` and the gradient `(D,)`."""

    def evaluate(flat: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = grad_and_value(point)(flat)
        return value, gradient

    return evaluate


def eager_value_and_gradient(point: Point, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return value `()` and gradient `(D,)` by autograd, as Pyro itself would."""
    with torch.enable_grad():
        free = flat.detach().requires_grad_()
        value = point(free)
        (gradient,) = torch.autograd.grad(value, free)
    return value.detach(), gradient


def first_line(error: Exception) -> str:
    """Return the part of an error's message that fits a line."""
    return str(error).strip().splitlines()[0][:200] if str(error) else type(error).__name__
