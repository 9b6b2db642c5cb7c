"""An objective with its gradient as a pure function of one flat parameter vector.

`ObjectiveGradient` is to methods that learn parameters what `LogDensity` is to samplers: guide,
model and backward pass as one graph of tensor operations.  Whatever changes between calls is an
input: the parameters, the rows of a minibatch, the step, the noise.  The noise comes from torch's
own stream in the order of the program, so that the graph gives the numbers that Pyro itself would.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
from torch import Tensor

from pyrolatent.capture.ladder import REFUSALS, close, first_line
from pyrolatent.capture.modes import FailingCholesky, ReadValues
from pyrolatent.capture.noise import NoisyGraph, capture_noisy
from pyrolatent.capture.parameters import Parameters
from pyrolatent.errors import ModelError
from pyrolatent.pair import Pair
from pyrolatent.seeds import forked

Rows = Mapping[str, Tensor]
LossAndGradient = tuple[Tensor, Tensor]

COMPARED_SEED = 0  # of the noise under which the captured numbers are compared with eager ones


class Loss(Protocol):
    """A loss in nats `()` of a pair and its data, to be minimised."""

    def __call__(
        self, pair: Pair, data: Mapping[str, Any], noise: contextlib.AbstractContextManager[Any], step: Tensor
    ) -> Tensor:
        """Return the loss; what is random in it is drawn within `noise`."""


@final
@dataclass(frozen=True)
class ObjectiveGradient:
    """Loss `()` and gradient `(P,)` of an objective at parameters `(P,)`, for one shape of batch.

    Attributes:
        evaluate: The same in plain Pyro: `(flat, step, *rows)`.
        names: Entries of the data that are handed in anew at each call, in order.
        noisy: The captured graph; None where the code could not be captured.
        reason: Why it could not.
    """

    evaluate: Callable[..., LossAndGradient] = field(repr=False)
    names: tuple[str, ...]
    noisy: NoisyGraph | None = field(repr=False)
    reason: str = ""

    @property
    def rung(self) -> str:
        return "eager" if self.noisy is None else "graph"

    def __call__(self, flat: Tensor, step: Tensor, rows: Rows) -> LossAndGradient:
        """Return loss and gradient with fresh noise from torch's own stream."""
        inputs = (flat, step, *(rows[name] for name in self.names))
        return self.evaluate(*inputs) if self.noisy is None else self.noisy(*inputs)


def capture_objective(
    objective: Loss,
    pair: Pair,
    parameters: Parameters,
    constants: Mapping[str, Any],
    examples: tuple[Rows, Rows],
) -> ObjectiveGradient:
    """Capture `objective` and its gradient; call inside `model_context`.

    Args:
        objective: The loss.
        pair: Model and guide, scaled for the size of the batches.
        parameters: What the pair learns.
        constants: Entries of the data that never change.
        examples: Two batches of those that do, of the shape of all batches to come.

    Raises:
        ModelError: The loss is random beyond its noise, or no gradient reaches the parameters.
    """
    names = tuple(examples[0])

    def evaluate(flat: Tensor, step: Tensor, *rows: Tensor) -> LossAndGradient:
        data = {**constants, **dict(zip(names, rows, strict=True))}
        with torch.enable_grad(), FailingCholesky() as cholesky:
            free = flat.detach().requires_grad_()
            with parameters.at(free):
                loss = objective(pair, data, contextlib.nullcontext(), step)
            check_loss(loss)
            (gradient,) = torch.autograd.grad(loss, free, allow_unused=True)
        check_gradient(gradient)
        return -cholesky.guard(-loss.detach()), gradient

    def traced(flat: Tensor, step: Tensor, *rows: Tensor) -> LossAndGradient:
        with ReadValues():
            return evaluate(flat, step, *rows)

    flat = parameters.initial
    points = [
        (flat + 0.01 * torch.randn_like(flat), flat.new_tensor(float(index)), *batch.values())
        for index, batch in enumerate(examples)
    ]
    expected = [seeded_call(evaluate, point) for point in points]
    try:
        noisy = capture_noisy(traced, *points[0])
        found = [seeded_call(noisy, point) for point in points]
    except REFUSALS as error:
        return ObjectiveGradient(evaluate, names, None, first_line(error))
    if not all(agree(a, b) for a, b in zip(found, expected, strict=True)):
        again = [seeded_call(evaluate, point) for point in points]
        check_repeatable(again, expected)
        return ObjectiveGradient(evaluate, names, None, "captured numbers differ from eager ones")
    return ObjectiveGradient(evaluate, names, noisy)


def seeded_call(function: Callable[..., LossAndGradient], inputs: tuple[Tensor, ...]) -> LossAndGradient:
    """Return the numbers under one fixed noise; torch's own stream stays where it was."""
    with forked():
        torch.manual_seed(COMPARED_SEED)
        return function(*inputs)


def agree(found: LossAndGradient, expected: LossAndGradient) -> bool:
    """True where loss and gradient are equal up to rounding."""
    scale = expected[1].abs().max().nan_to_num(posinf=1.0).clamp(min=1.0)
    return close(found[0], expected[0]) and close(found[1] / scale, expected[1] / scale)


def check_loss(loss: Any) -> None:
    """Refuse a loss that is no tensor `()`, or that depends on nothing."""
    if not isinstance(loss, Tensor) or loss.shape:
        raise ModelError(
            "the objective does not return a scalar tensor",
            why=f"it returned {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}",
            remedy="sum the loss over rows and draws, and leave out .item()",
        )
    check_gradient(loss if loss.requires_grad else None)


def check_gradient(gradient: Tensor | None) -> None:
    """Refuse an objective that does not depend on what is to be learnt."""
    if gradient is None:
        raise ModelError(
            "no gradient reaches the parameters",
            why="the loss does not depend on any of them",
            remedy="use pyro.param, an autoguide or pyro.module inside model or guide",
        )


def check_repeatable(again: list[LossAndGradient], expected: list[LossAndGradient]) -> None:
    """Refuse a loss that differs under the same noise."""
    if not all(agree(a, b) for a, b in zip(again, expected, strict=True)):
        raise ModelError(
            "the loss differs from call to call under the same random numbers",
            why="something in model or guide is drawn by NumPy or Python, or changes with each call",
            remedy="draw it with pyro.sample or torch, or once before the fit",
        )
