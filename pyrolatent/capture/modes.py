"""How torch functions behave while a model's density is evaluated."""

from typing import Any, final

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode

READERS = {
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.__index__,
    Tensor.__format__,
    Tensor.__contains__,
    Tensor.nonzero,
    Tensor.masked_select,
    Tensor.unique,
    torch.nonzero,
    torch.masked_select,
    torch.unique,
}


class ReadsLatentError(RuntimeError):
    """The model's course depends on the value of a latent site."""


@final
class ReadValues(TorchFunctionMode):
    """Lets a model read the values of its data while it is traced, and of nothing else.

    What depends on a latent site is a stand-in during a trace: read into Python, NumPy or a shape,
    the value of the example would be baked in silently.

    Args:
        flat: The latents `(D,)`, as the function transforms hand them in.
    """

    def __init__(self, flat: Tensor) -> None:
        super().__init__()
        self.batched = innermost(flat) is None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in READERS:
            value, *rest = args or (kwargs.pop("input"),)
            value = self.constant(value, func)
            with disable_proxy_modes_tracing(), torch._C._DisableFuncTorch():
                return func(value.detach(), *rest, **kwargs)
        if func is Tensor.__getitem__:
            return func(args[0], self.with_positions(args[1]))
        return func(*args, **kwargs)

    def constant(self, value: Tensor, func: Any) -> Tensor:
        """Return the tensor behind the wrappers of the transforms.

        All that a gradient transform sees is wrapped, but only what depends on the latents is
        batched.  Without a batch the two cannot be told apart.
        """
        plain = innermost(value)
        if plain is None or (plain is not value and not self.batched):
            raise ReadsLatentError(f"Tensor.{func.__name__} of a value that depends on a latent site")
        return plain

    def with_positions(self, index: Any) -> Any:
        """Return an index with boolean tensors replaced by the positions where they are True."""
        parts = index if isinstance(index, tuple) else (index,)
        if not any(is_mask(part) for part in parts):
            return index
        return tuple(position for part in parts for position in self.positions(part))

    def positions(self, part: Any) -> tuple[Any, ...]:
        if not is_mask(part):
            return (part,)
        mask = self.constant(part, Tensor.nonzero)
        with disable_proxy_modes_tracing(), torch._C._DisableFuncTorch():
            return mask.nonzero(as_tuple=True)


@final
class FailingCholesky(TorchFunctionMode):
    """Lets a point whose Cholesky factorisation fails fail alone, with density zero.

    `linalg.cholesky` raises for a whole batch, `cholesky_ex` returns finite garbage for the
    failed matrix; so the latter runs, and what it reports decides the density.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.linalg.cholesky, torch.cholesky, Tensor.cholesky):
            upper = (kwargs or {}).get("upper", args[1] if len(args) > 1 else False)
            factor, info = torch.linalg.cholesky_ex(args[0], upper=upper)
            self.failures.append((info > 0).any())
            return factor
        return func(*args, **(kwargs or {}))

    def guard(self, log_density: Tensor) -> Tensor:
        """Return `log_density ()`, or -inf where a factorisation failed."""
        if not self.failures:
            return log_density
        return torch.where(torch.stack(self.failures).any(), -torch.inf, log_density)


def is_mask(part: Any) -> bool:
    """True for a boolean tensor in an index."""
    return isinstance(part, Tensor) and part.dtype is torch.bool and part.ndim > 0


def innermost(value: Tensor) -> Tensor | None:
    """Return the tensor inside the wrappers of gradient transforms, or None if it is batched."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            return None
        value = functorch.get_unwrapped(value)
    return value
