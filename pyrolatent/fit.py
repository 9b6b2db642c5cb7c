"""The verb: `fit(model, data, method)`."""

import platform
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.capture.context import fitting_threads
from pyrolatent.errors import DataError, FitWarning
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.method import Method
from pyrolatent.pair import Model, Pair, as_pair, check_arguments
from pyrolatent.result import Compile, Fit, Problem
from pyrolatent.seeds import fresh_seed, seeded

TYPICAL_CHAINS = 64
VERSIONS = ("pyrolatent", "torch", "pyro-ppl", "numpy", "pandas")


def fit(
    model: Model | Pair,
    data: Mapping[str, Any] | pd.DataFrame,
    method: Method | None = None,
    *,
    guide: Model | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: Compile = "auto",
    progress: bool = True,
) -> Fit:
    """Fit `model` to `data`.

    Args:
        model: A Pyro model function, called as `model(**data)`, or a pair.
        data: The model's arguments by name: tensors, arrays and series become tensors, all else
            passes through.  Or a table, for a pair with a schema.
        method: How to fit; by default `HMC()`.
        guide: The guide of a model function, for methods that need one.
        seed: One seed for the whole fit; by default a fresh one, kept in `fit.seed`.
        device: By default the device of the data, else CUDA where there is one.
        dtype: Of all floating-point numbers; by default float64.
        compile: True and False say whether to compile; "auto" decides from the graph's size and
            the planned work.
        progress: Show one bar, on a terminal.

    Raises:
        ModelError: The model cannot be fitted by this method, with the site it fails at.
        DataError: The data cannot be used, with column, row or entry.
    """
    pair = as_pair(model, guide)
    frame = data.copy() if isinstance(data, pd.DataFrame) else None
    entries = dict(data) if frame is None else encode(pair, frame)
    check_arguments(pair, entries)
    place = choose_device(entries, device)
    dtype = dtype or torch.float64
    tensors = {name: as_input(value, dtype, place) for name, value in entries.items()}
    seed = fresh_seed() if seed is None else seed
    problem = Problem(pair, tensors, frame, seed, dtype, place, compile, progress)
    with seeded(seed, "model"), fitting_threads(tensors, copies=TYPICAL_CHAINS):
        result = (method or HMC()).run(problem)
    for message in result.warnings:
        warnings.warn(message, FitWarning, stacklevel=2)
    return replace(result, info={**result.info, "versions": versions()})


def encode(pair: Pair, frame: pd.DataFrame) -> dict[str, Tensor]:
    """Return the tensors of a table, by the pair's schema."""
    if pair.schema is None:
        raise DataError(
            "a table was given to a model without a schema",
            why=f"columns {list(frame.columns)[:10]}",
            remedy="pass a dictionary of its arguments, or a pair such as BayesianMVN(infer_schema(frame))",
        )
    return pair.schema.encode(frame)


def choose_device(entries: Mapping[str, Any], device: torch.device | str | None) -> torch.device:
    """Return the device asked for, else that of the data, else CUDA where there is one."""
    if device is not None:
        return torch.device(device)
    placed = next((value.device for value in entries.values() if isinstance(value, Tensor)), None)
    if placed is not None and placed.type != "cpu":
        return placed
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_input(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Return tensors, arrays, series and lists of numbers as tensors of our own; anything else as it is."""
    if isinstance(value, pd.Series | list | np.ndarray):
        array = as_array(value)
        value = torch.tensor(np.ascontiguousarray(array)) if array.dtype.kind in "biuf" else value
    if not isinstance(value, Tensor):
        return value
    wanted = dtype if value.is_floating_point() else value.dtype
    return value.detach().to(device=device, dtype=wanted, copy=True)


def as_array(value: "pd.Series[Any] | list[Any] | NDArray[Any]") -> NDArray[Any]:
    """Return an array of the values; a list of unequal lists becomes one of objects."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.empty(0, dtype=object)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}
