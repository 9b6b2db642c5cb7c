"""What to say when a model fails on its data."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from pyrolatent.errors import DataError, ModelError, PyrolatentError

STRAY = "on the same device"  # what torch says tensors should be, of one that is not


@contextlib.contextmanager
def explained(data: Mapping[str, Any]) -> Iterator[None]:
    """Surround a first run of a model; a failure on unequal lengths or devices is reported as that.

    Raises:
        DataError: The model fails, and the entries of `data` do not fit each other.
        ModelError: It has a tensor on another device than the fit's.
    """
    try:
        yield
    except PyrolatentError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if STRAY in str(error):
            raise ModelError(
                "the model has a tensor on another device than the data",
                why=str(error),
                remedy="make it inside the model, pass it as data, or pass device='cpu'",
            ) from error
        lengths = {
            name: len(value) for name, value in data.items() if isinstance(value, Tensor) and value.ndim
        }
        if len(set(lengths.values())) < 2:
            raise
        raise DataError(
            "the model failed, and the entries of the data have unequal row counts",
            why=f"rows: {lengths}; the model said: {error}",
            remedy="give every per-row entry the same first dimension",
        ) from error
