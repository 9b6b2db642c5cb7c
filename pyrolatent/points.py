"""Functions that have their points in the last dimension.

`vmap` puts the points of a batch first.  Where a function takes a tensor apart into many small
pieces, a point's share of each is short; with the points last, every operation runs along all of
them.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]


def points_last(function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return `function(*inputs)` where it treats its points one by one.

    Args:
        function: Takes tensors `(*input, P)` and returns tensors `(*output, P)`; those that it holds
            itself must be constants.
        inputs: `(*input)`, for one point or, under `vmap`, for many.

    Returns:
        `(*output)` for each point; differentiable as often as the function is.
    """
    outputs: tuple[Tensor, ...] = PointsLast.apply(function, *(x[..., None] for x in inputs))
    return tuple(output[..., 0] for output in outputs)


@final
class PointsLast(torch.autograd.Function):
    """A function of tensors `(*input, P)`; `vmap` makes P larger."""

    @staticmethod
    def forward(function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        return function(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        function, count = ctx.function, len(ctx.saved_tensors)

        def pull_back(*tensors: Tensor) -> tuple[Tensor, ...]:
            pulled: tuple[Tensor, ...] = torch.func.vjp(function, *tensors[:count])[1](tensors[count:])
            return pulled

        return None, *PointsLast.apply(pull_back, *ctx.saved_tensors, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Function, *inputs: Tensor) -> Any:
        size = info.batch_size
        moved = [
            x[..., None].expand(*x.shape, size) if dim is None else x.movedim(dim, -1)
            for x, dim in zip(inputs, in_dims[1:], strict=True)
        ]
        outputs = PointsLast.apply(function, *(x.flatten(-2) for x in moved))
        return tuple(x.unflatten(-1, (-1, size)) for x in outputs), tuple(x.ndim for x in outputs)
