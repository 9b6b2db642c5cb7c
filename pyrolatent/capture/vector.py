"""Flat vectors and the named tensors in them; results of single runs as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Result = TypeVar("Result")


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in a flat vector of `size` numbers."""

    shapes: Mapping[str, torch.Size]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @property
    def size(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the named tensors `(..., *shape)` of `flat (..., size)`."""
        parts = flat.split([prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: part.reshape(flat.shape[:-1] + shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the flat vector `(size,)` of `tensors`; the inverse of `unpack`."""
        return torch.cat([tensors[name].reshape(-1) for name in self.names])


def stacked(results: Sequence[Result]) -> Result:
    """Return S results of one structure, dictionaries or sequences of tensors, as one of `(S, ...)` each."""
    one: Result = tree_map(lambda *parts: torch.stack(parts), *results)
    return one
