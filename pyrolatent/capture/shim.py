"""A shim under which `vmap` runs code that writes in place.

`vmap` refuses to write what differs from point to point into a tensor that does not, as
`out = torch.zeros(n)` and then `out[i] = x` do.  Here new tensors differ from the start, by a zero
for each point; and what a boolean mask selects is set by `torch.where`, since the mask may differ from
point to point too.
"""

from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyrolatent.capture.modes import is_mask

Point = TypeVar("Point")
Result = TypeVar("Result")

NEW = {
    torch.clone,
    torch.empty,
    torch.empty_like,
    torch.eye,
    torch.full,
    torch.full_like,
    torch.ones,
    torch.ones_like,
    torch.tensor,
    torch.zeros,
    torch.zeros_like,
    Tensor.clone,
    Tensor.new_empty,
    Tensor.new_full,
    Tensor.new_ones,
    Tensor.new_tensor,
    Tensor.new_zeros,
}


@final
class WritableBatches(TorchFunctionMode):
    """Makes new tensors of floating point batched as `example` is, so that all may be written into them."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.zero = torch.zeros_like(example.sum())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__setitem__ and is_mask(args[1]) and is_single(args[2]):
            return fill(*args)
        made = func(*args, **(kwargs or {}))
        return made + self.zero.to(made) if func in NEW and made.is_floating_point() else made


def writable(function: Callable[[Point], Result]) -> Callable[[Point], Result]:
    """Return `function` of one point, a tensor or a dictionary of them, to be run under the shim."""

    def shimmed(point: Point) -> Result:
        with WritableBatches(tree_leaves(point)[0]):
            return function(point)

    return shimmed


def is_single(value: Any) -> bool:
    """True for a number, also in a tensor `()`."""
    return not isinstance(value, Tensor) or value.ndim == 0


def fill(target: Tensor, mask: Tensor, value: Any) -> None:
    """Set `target` to `value ()` where `mask`, which covers its first dimensions, is True."""
    wide = mask.reshape(mask.shape + (1,) * (target.ndim - mask.ndim))
    target.copy_(torch.where(wide, value, target))
