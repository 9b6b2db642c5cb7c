"""What surrounds every run of a model: nothing of it is left behind afterwards.

Validation breaks `vmap` and `make_fx`, and bare numbers in a model (`HalfNormal(0.1)`) follow the
default dtype and device, so a fit switches all three, in a parameter store of its own, and puts
everything back.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.capture.traceable import traceable

PARALLEL_NUMEL = 2**23  # numbers in a tensor from which several threads are worth waiting for each other


@contextlib.contextmanager
def model_context(dtype: torch.dtype, device: torch.device, *, validate: bool = False) -> Iterator[None]:
    """Run models in `dtype` on `device`, with a fresh parameter store; restore all on leaving."""
    previous = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(pyro.get_param_store().scope())
        stack.enter_context(pyro.validation_enabled(validate))
        stack.enter_context(traceable())
        if not validate:
            stack.enter_context(no_sample_checks())
        if device.type != "cpu":
            stack.enter_context(device)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(previous)


@contextlib.contextmanager
def no_sample_checks() -> Iterator[None]:
    """Let distributions made before the fit, which carry a switch of their own, check nothing either."""
    checks = Distribution._validate_sample
    Distribution._validate_sample = unchecked  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Distribution._validate_sample = checks  # type: ignore[method-assign]


def unchecked(distribution: Distribution, value: Tensor) -> None:
    """Take every value."""


@contextlib.contextmanager
def fitting_threads(data: Mapping[str, Any], copies: int) -> Iterator[None]:
    """Work on `copies` of the data at once, on one thread where several would not pay.

    Threads that wait for each other after every small operation gain little on a quiet machine, and
    lose up to 30 times where somebody else keeps a core busy.
    """
    largest = max((value.numel() for value in data.values() if isinstance(value, Tensor)), default=1)
    previous = torch.get_num_threads()
    torch.set_num_threads(previous if copies * largest >= PARALLEL_NUMEL else 1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
