"""A device that computes on the CPU but will not meet it, so that strays are found without a GPU.

Tensors on it hold CPU tensors and call themselves `meta`, the one device without numbers that every
build of torch knows.  As on CUDA, an operation raises where such a tensor meets one on the CPU, unless
that is a single number `()` in elementwise arithmetic; `numpy` raises, and `to` and `cpu` move.  Unlike
torch's own fake tensors these have values: code may read them, and results can be compared.

Where the host would wait for a GPU, because it reads a value or because a shape depends on values, is
counted (`Waits`): each wait costs about as much as several operations.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, final

import pytest
import torch
from torch import Tensor
from torch.fx.experimental import proxy_tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
READS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)
TAKES_NUMBERS = (aten.index_put.default, aten.index_put_.default, aten.fill_.Tensor)


@final
class OnDevice(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        made.held = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert a tensor of this device to numpy; move it with .cpu() first")
        return self.held.numpy(force=True)

    def tolist(self) -> Any:
        return self.held.tolist()  # allowed on CUDA, but not for a subclass of Tensor

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation where its tensors are."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    wrappers = {id(leaf.held): leaf for leaf in tensors if isinstance(leaf, OnDevice)}
    strays = [leaf for leaf in tensors if not isinstance(leaf, OnDevice) and not may_stray(func, leaf)]
    if wrappers and strays:
        shapes = [tuple(stray.shape) for stray in strays]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} got {shapes} on the CPU")
    there = bool(wrappers)
    if func is aten.copy_.default:
        there = isinstance(args[0], OnDevice)
    elif kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": "cpu"}
    result = func(*tree_map_only(OnDevice, content, args), **tree_map_only(OnDevice, content, kwargs))
    if not there:
        return result
    return tree_map_only(
        Tensor, lambda leaf: wrappers[id(leaf)] if id(leaf) in wrappers else OnDevice(leaf), result
    )


def content(tensor: OnDevice) -> Tensor:
    return tensor.held


def may_stray(func: Any, tensor: Tensor) -> bool:
    """True where CUDA would take `tensor` from the CPU."""
    takes_numbers = torch.Tag.pointwise in func.tags or func in TAKES_NUMBERS
    return func in MOVES or (tensor.ndim == 0 and takes_numbers)


@final
class Operations(TorchDispatchMode):
    """Makes new tensors on the device where they are asked for there; to a graph they are constants."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(leaf, OnDevice) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **(kwargs or {}))  # seen by a tracer first
        with proxy_tensor.disable_proxy_modes_tracing():
            made = compute(func, args, kwargs or {})
        return made.clone() if isinstance(made, OnDevice) else made


@final
class Waits(TorchDispatchMode):
    """Counts where, within a block, the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with proxy_tensor.disable_proxy_modes_tracing():
            result = func(*args, **(kwargs or {}))
        self.number += is_wait(func, args, result)
        return result


def is_wait(func: Any, args: Any, result: Any) -> bool:
    """True where values leave the device, or a shape follows from them."""
    if func is aten.index.Tensor or func is aten.index_put_.default:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if func in MOVES:
        source = args[1] if func is aten.copy_.default else args[0]
        return isinstance(source, OnDevice) and not isinstance(result, OnDevice)
    return func in READS and isinstance(args[0], OnDevice)


@final
class Literals(TorchFunctionMode):
    """Moves values given to `torch.tensor` and `torch.as_tensor`, which torch drops for `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            func, args = torch.tensor, args[1:]
        literal = func is torch.tensor or (func is torch.as_tensor and not isinstance(args[0], Tensor))
        if literal and (device := kwargs.pop("device", None)) is not None:
            return func(*args, **kwargs, device="cpu").to(device)
        return func(*args, **kwargs)


class Generator(torch.Generator):
    """A stream that says it is on the device."""

    asked: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        made = super().__new__(cls, "cpu")
        made.asked = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.asked


@contextlib.contextmanager
def fake_device() -> Iterator[torch.device]:
    """Provide the device within a block."""
    fused = [DEVICE.type, *optimizer._get_fused_kernels_supported_devices()]
    with pytest.MonkeyPatch.context() as patch, Literals(), Operations():
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: list(fused))
        patch.setattr(proxy_tensor, "HANDLED_TYPES", (*proxy_tensor.HANDLED_TYPES, OnDevice))  # in make_fx
        yield DEVICE


def moved(data: dict[str, Any], device: torch.device = DEVICE) -> dict[str, Any]:
    """Return `data` with its tensors on the device."""
    return {name: part.to(device) if isinstance(part, Tensor) else part for name, part in data.items()}
