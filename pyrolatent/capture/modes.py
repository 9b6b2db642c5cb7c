"""How torch functions behave while a model's density is evaluated."""

import contextlib
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from pyrolatent.capture.dependence import Dependence

READERS = {
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.__index__,
    Tensor.__complex__,
    Tensor.__format__,
    Tensor.__repr__,
    Tensor.__contains__,
    Tensor.is_nonzero,
    Tensor.equal,
    Tensor.allclose,
    Tensor.nonzero,
    Tensor.argwhere,
    Tensor.masked_select,
    Tensor.unique,
    Tensor.unique_consecutive,
    torch.is_nonzero,
    torch.equal,
    torch.allclose,
    torch.nonzero,
    torch.argwhere,
    torch.masked_select,
    torch.unique,
    torch.unique_consecutive,
    torch.nn.functional.one_hot,
}
# Given a list, they read the tensors in it.
BUILDERS = {torch.tensor, torch.as_tensor, torch.asarray}
INDEXED = {Tensor.__getitem__, Tensor.__setitem__}
INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


class ReadsLatentError(RuntimeError):
    """The code's course depends on the value of a latent site, a parameter or a batch."""


@final
class ReadValues(TorchFunctionMode):
    """Lets a model read the values of its constants while it is traced, and of nothing else.

    What depends on a latent site, or on any other input of the graph, is a stand-in during a trace:
    read into Python, NumPy or a shape, the value of the example would be baked in silently.  Enter
    it inside the function that is traced, so that it knows the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dependence = Dependence()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if exception[0] is None and (node := self.dependence.changing_shape()) is not None:
            raise reads_latent(f"shape ({node.name})")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READERS:
            args, kwargs = self.constants((args, kwargs), f"Tensor.{func.__name__}")
            with untraced():
                args, kwargs = tree_map_only(Tensor, Tensor.detach, (args, kwargs))
                return func(*args, **kwargs)
        if func in BUILDERS:
            args = [self.listed(part, func) for part in args]
            kwargs = {name: self.listed(part, func) for name, part in kwargs.items()}
        if func in INDEXED:
            args = (args[0], self.plain_index(args[1]), *args[2:])
        return func(*args, **kwargs)

    def constant(self, value: Tensor) -> Tensor | None:
        """Return a constant as it is behind the wrappers of function transforms; None for all else."""
        plain = innermost(value)
        return None if plain is None or self.dependence.changes(plain) else plain

    def constants(self, arguments: Any, reader: str) -> Any:
        """Return `arguments`, all of whose tensors must be constants."""

        def plain(value: Tensor) -> Tensor:
            if (found := self.constant(value)) is None:
                raise reads_latent(reader)
            return found

        return tree_map_only(Tensor, plain, arguments)

    def listed(self, part: Any, func: Any) -> Any:
        """Return an argument, whose tensors must be constants if it is a list of them."""
        return self.constants(part, f"torch.{func.__name__}") if isinstance(part, list | tuple) else part

    def plain_index(self, index: Any) -> Any:
        """Return an index with constant masks as positions where they are True, constant numbers as int."""
        if not isinstance(index, tuple):
            plain = tuple(self.positions(index))
            return plain[0] if len(plain) == 1 else plain
        return tuple(position for part in index for position in self.positions(part))

    def positions(self, part: Any) -> Iterator[Any]:
        if isinstance(part, slice):
            yield slice(self.number(part.start), self.number(part.stop), self.number(part.step))
        elif is_mask(part) and (mask := self.constant(part)) is not None:
            with untraced():
                yield from mask.nonzero(as_tuple=True)
        else:
            yield self.number(part)

    def number(self, part: Any) -> Any:
        if not (isinstance(part, Tensor) and part.ndim == 0 and part.dtype in INTEGERS):
            return part
        if (plain := self.constant(part)) is None:
            return part
        with untraced():
            return int(plain)


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


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Compute at once, with values, and leave no operation in a graph."""
    with disable_proxy_modes_tracing(), torch._C._DisableFuncTorch():
        yield


def reads_latent(reader: str) -> ReadsLatentError:
    """Return the error that names what read."""
    return ReadsLatentError(f"{reader} of a value that depends on a latent site, a parameter or the batch")


def is_mask(part: Any) -> bool:
    """True for a boolean tensor in an index."""
    return isinstance(part, Tensor) and part.dtype is torch.bool and part.ndim > 0


def innermost(value: Tensor) -> Tensor | None:
    """Return the tensor inside the wrappers of function transforms, or None if it is batched."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            return None
        if functorch.is_functionaltensor(value):
            torch._sync(value)  # type: ignore[attr-defined]  # take in what was written into its views
        value = functorch.get_unwrapped(value)
    return value
