"""What a tensor was before it was expanded over rows.

A plate expands the parameters of a distribution.  The first row of `loc.expand(n, D)` is `loc`, but
the gradient through it writes and sums a tensor of all rows, at each evaluation.
"""

from typing import Any, final

from torch import Tensor
from torch.overrides import TorchFunctionMode


@final
class Expansions(TorchFunctionMode):
    """Remembers what every `expand` in its reach was called on."""

    def __init__(self) -> None:
        super().__init__()
        # id of an expanded tensor -> that tensor, kept so that no other gets its id, and what it was
        self.sources: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is Tensor.expand:
            self.sources[id(result)] = (result, args[0])
        return result

    def unexpanded(self, value: Tensor, event_dim: int) -> Tensor:
        """Return what `value (*batch, *event)` was before its batch, or a part of it, was expanded."""
        event = value.shape[value.ndim - event_dim :]
        while id(value) in self.sources:
            _, source = self.sources[id(value)]
            if source.ndim < event_dim or source.shape[source.ndim - event_dim :] != event:
                break
            value = source
        return value
