"""Which entries of an observed site count: those that no mask hides.

A mask is that of a `RowDistribution`, of `distribution.mask(...)` or of `pyro.poutine.mask`.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.capture.messages import WRAPPERS, Message
from pyrolatent.distributions import RowDistribution


def seen_entries(message: Message) -> Tensor:
    """Return which entries of an observed site `(*site)` count."""
    value, fn, mask = torch.as_tensor(message["value"]), message["fn"], message["mask"]
    seen = torch.ones(value.shape, dtype=torch.bool, device=value.device) & seen_cells(fn)
    return seen if mask is None else seen & over_events(mask, fn.event_dim)


def seen_cells(fn: Any) -> Tensor | bool:
    """Return the mask that a distribution carries, to be broadcast to its values."""
    if isinstance(fn, RowDistribution):
        return fn.observed
    seen = seen_cells(fn.base_dist) if isinstance(fn, WRAPPERS) else True
    if isinstance(fn, dist.MaskedDistribution):
        return over_events(fn._mask, fn.event_dim) & seen
    return seen


def over_events(mask: Tensor | bool, event_dim: int) -> Tensor | bool:
    """Return a mask of the batch shape as one to be broadcast to values."""
    return mask if isinstance(mask, bool) else mask.reshape(mask.shape + (1,) * event_dim)
