"""What surrounds every run of a model: nothing of it is left behind afterwards.

Validation breaks `vmap` and `make_fx`, and bare numbers in a model (`HalfNormal(0.1)`) follow the
default dtype and device, so a fit switches all three, in a parameter store of its own, and puts
everything back.
"""

import contextlib
from collections.abc import Iterator

import pyro
import torch


@contextlib.contextmanager
def model_context(dtype: torch.dtype, device: torch.device, *, validate: bool = False) -> Iterator[None]:
    """Run models in `dtype` on `device`, with a fresh parameter store; restore all on leaving."""
    previous = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(pyro.get_param_store().scope())
        stack.enter_context(pyro.validation_enabled(validate))
        if device.type != "cpu":
            stack.enter_context(device)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(previous)
