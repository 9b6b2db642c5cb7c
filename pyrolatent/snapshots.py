"""Nested values as JSON with their tensors beside it, and back, bit for bit.

A value is a tensor, a number, text, None, or a dictionary, list, tuple, named tuple or dataclass of
such.  Classes are named in the JSON and looked up among those that the reader expects, so that
reading runs no code of the file.  A tensor comes back in memory of its own with the order of
dimensions that it had there: products of matrices differ in their last bits by how these lie.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

State = Any  # what JSON holds


def flatten(value: Any, tensors: dict[str, Tensor]) -> State:
    """Return `value` as JSON; its tensors are added to `tensors`, under numbers.

    Raises:
        TypeError: It holds something of another kind.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        order = sorted(range(value.ndim), key=value.stride, reverse=True)
        tensors[name] = value.detach().cpu().permute(order).clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "on": value.device.type, "order": order}
    if isinstance(value, Mapping):
        return {"dict": [[flatten(k, tensors), flatten(v, tensors)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, "dict": flatten(parts, tensors)["dict"]}
    if isinstance(value, tuple) and type(value) is not tuple:
        names = type(value)._fields  # type: ignore[attr-defined]  # of a named tuple
        parts = dict(zip(names, value, strict=True))
        return {"class": type(value).__name__, "dict": flatten(parts, tensors)["dict"]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [flatten(item, tensors) for item in value]}
    raise TypeError(f"{type(value).__name__} has no plain form")


def rebuild(
    state: State, tensors: Mapping[str, Tensor], classes: Iterable[type[Any]], device: torch.device
) -> Any:
    """Return the value that `flatten` described.

    Args:
        state: The JSON.
        tensors: Those beside it.
        classes: Classes of dataclasses and named tuples that it may hold.
        device: Where tensors go that were not on the CPU.
    """
    known = {cls.__name__: cls for cls in classes}

    def build(part: State) -> Any:
        if not isinstance(part, dict):
            return part
        if "tensor" in part:
            places = [part["order"].index(dim) for dim in range(len(part["order"]))]
            tensor = tensors[part["tensor"]].clone().permute(places)
            return tensor.to("cpu" if part["on"] == "cpu" else device)
        if "dict" not in part:
            ((kind, items),) = part.items()
            return {"list": list, "tuple": tuple}[kind](build(item) for item in items)
        values = {build(key): build(value) for key, value in part["dict"]}
        return known[part["class"]](**values) if "class" in part else values

    return build(state)
