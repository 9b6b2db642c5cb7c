"""The verb: `fit(model, data, method)`."""

import hashlib
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.capture.compile import has_compiler
from pyrolatent.capture.context import fitting_threads
from pyrolatent.capture.failures import explained
from pyrolatent.capture.parameters import Parameters, find_parameters
from pyrolatent.checkpoint import Checkpoint, check_identity, kept_folder, kept_identity
from pyrolatent.errors import ArgumentError, DataError, FitWarning, ModelError
from pyrolatent.frames import arguments_from_frame, with_columns
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.svi import SVI
from pyrolatent.pair import Model, Pair, as_pair, check_arguments
from pyrolatent.ranks import current_ranks
from pyrolatent.result import Compile, Fit, Problem
from pyrolatent.saved_parts import method_to_dict, pair_to_dict
from pyrolatent.seeds import fresh_seed, seeded

TYPICAL_CHAINS = 64
VERSIONS = ("pyrolatent", "torch", "pyro-ppl", "numpy", "pandas")


def fit(
    model: Model | Pair,
    data: Mapping[str, Any] | pd.DataFrame,
    method: Method | None = None,
    *,
    guide: Model | None = None,
    start: Fit | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: Compile = "auto",
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: str | os.PathLike[str] | bool | None = None,
) -> Fit:
    """Fit `model` to `data`.

    Where a process group of `torch.distributed` runs, as `torchrun` starts them, all its processes call
    `fit` alike, share the work and return the same fit.

    Args:
        model: A Pyro model function, called as `model(**data)`, or a pair.
        data: The model's arguments by name: tensors, arrays and series become tensors, all else
            passes through.  Or a table, for a pair with a schema.
        method: How to fit; by default `SVI()` where model or guide have learnable parameters, else
            `HMC()`.
        guide: The guide of a model function, for methods that use one; or a class of Pyro's
            autoguides.
        start: An earlier fit of the same model to begin at: its draws for samplers and importance
            sampling, its parameters for `SVI`.
        seed: One seed for the whole fit; by default a fresh one, kept in `fit.seed`.
        device: By default the device of the data, else CUDA where there is one.
        dtype: Of all floating-point numbers; by default float32 where a network is learnt, else
            float64.
        compile: True and False say whether to compile; "auto" decides from the graph's size and
            the planned work.
        progress: Show one bar, on a terminal.
        checkpoint: A folder in which the run is kept, so that it can be resumed.
        checkpoint_every: Iterations (transitions, training steps) between two checkpoints; by default
            one hundredth of the run.
        resume: The folder of a run to go on with, to the result that it would have had; or True to go
            on with what `checkpoint` holds, if anything.

    Raises:
        ArgumentError: A setting has no meaning, or none for this method.
        ModelError: The model cannot be fitted by this method, with the site it fails at.
        DataError: The data cannot be used, with column, row or entry.
        StoreError: The checkpoint is missing, in the way, or of another fit.
    """
    pair = as_pair(model, guide)
    check_settings(data, method, guide, start, seed, dtype)
    frame = data.copy() if isinstance(data, pd.DataFrame) else None
    pair = pair if frame is None else with_columns(pair, frame)
    entries = dict(data) if frame is None else encode(pair, frame)
    check_arguments(pair, entries)
    place = choose_device(entries, device)
    check_least("checkpoint_every", checkpoint_every, 1)
    ranks = current_ranks()
    folder, continues = kept_folder(checkpoint, resume, ranks)
    if folder is None and checkpoint_every is not None:
        raise ArgumentError("checkpoint_every needs a checkpoint", remedy="name a folder as checkpoint")
    kept = kept_identity(folder) if folder is not None and continues else {}
    seed = int(kept.get("seed", ranks.agreed(fresh_seed()))) if seed is None else int(seed)
    dtype = getattr(torch, kept["dtype"]) if dtype is None and kept else dtype
    tensors = {name: as_input(value, dtype or torch.float64, place) for name, value in entries.items()}
    with seeded(seed, "model"), fitting_threads(tensors, copies=TYPICAL_CHAINS):
        learnt = learnable(pair, tensors, seed, dtype or torch.float64, place)
        method = method or (SVI() if learnt.layout.size or pair.guide is not None else HMC())
        check_learns(method, learnt, start)
        dtype = dtype or (torch.float32 if learnt.of_module and method.learns else torch.float64)
        tensors = {name: as_input(value, dtype, place) for name, value in tensors.items()}
        watched = progress and ranks.first
        problem = Problem(pair, tensors, frame, seed, dtype, place, compile, watched, start, ranks=ranks)
        if folder is not None:
            identity = identity_of(problem, method)
            if continues:
                check_identity(folder, identity, kept)
            keeper = Checkpoint(folder, checkpoint_every, identity, ranks, continues)
            problem = replace(problem, checkpoint=keeper)
        result = method.run(problem)
    for message in result.warnings if ranks.first else ():
        warnings.warn(message, FitWarning, stacklevel=2)
    return replace(result, info={**result.info, **shapes(result), "versions": versions()})


def identity_of(problem: Problem, method: Method) -> dict[str, Any]:
    """Return in words and checksums what a run depends on."""
    guide, start = problem.pair.guide, problem.start
    return {
        "model": pair_to_dict(problem.pair),
        "stands on": {name: checksum(part.params) for name, part in problem.pair.stands_on.items()},
        "guide": None if guide is None else getattr(guide, "__name__", type(guide).__name__),
        "method": method_to_dict(method),
        "data": checksum(problem.data),
        "seed": problem.seed,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "device": problem.device.type,
        "start": None if start is None else checksum([start.samples, start.state]),
        "compile": problem.compile,
        "processes": problem.ranks.size,
        "C++ compiler": has_compiler(),
        "versions": versions(),
    }


def checksum(value: Any) -> str:
    """Return a checksum of nested tensors and plain values; of other objects only the class counts."""
    found = hashlib.sha256()
    match value:
        case Tensor():
            found.update(f"{value.dtype}, {tuple(value.shape)}".encode())
            plain = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            found.update(plain.flatten().view(torch.uint8).numpy().data)
        case Mapping():
            found.update("".join(checksum(pair) for pair in value.items()).encode())
        case list() | tuple():
            found.update("".join(map(checksum, value)).encode())
        case None | bool() | int() | float() | str() | np.generic():
            found.update(f"{type(value).__name__}: {value}".encode())
        case _:
            found.update(type(value).__qualname__.encode())
    return found.hexdigest()


def learnable(
    pair: Pair, data: Mapping[str, Any], seed: int, dtype: torch.dtype, device: torch.device
) -> Parameters:
    """Return what the model learns besides its latent sites."""
    with explained(data):
        return find_parameters([pair.model], data, seed=seed, dtype=dtype, device=device)


def check_learns(method: Method, learnt: Parameters, start: Fit | None) -> None:
    """Refuse a method that would leave learnable parameters at their first values.

    Raises:
        ModelError: With their names.
    """
    known = start is not None and start.parameters is not None
    if learnt.layout.size and not (method.learns or known):
        raise ModelError(
            f"the model has learnable parameters, and {type(method).__name__} learns none",
            where=f"parameters {list(learnt.layout.names)}",
            remedy="give them priors with pyro.sample, use pyrolatent.SVI(), or pass start= a fit by SVI()",
        )


def check_settings(
    data: Any,
    method: Any,
    guide: Model | None,
    start: Any,
    seed: int | None,
    dtype: torch.dtype | None,
) -> None:
    """Refuse arguments of the wrong kind by name.

    Raises:
        ArgumentError: The method, the seed, the dtype or the guide has no use here.
        DataError: The data are neither a table nor a dictionary.
    """
    if not isinstance(data, Mapping | pd.DataFrame):
        why = f"got {type(data).__name__}"
        raise DataError(
            "the data are neither a table nor a dictionary", why=why, remedy="pass dict(name=value)"
        )
    if not isinstance(method, Method | None):
        raise ArgumentError(
            "the method is not a method",
            why=f"got {method!r}",
            remedy="pass pyrolatent.HMC() or pyrolatent.EM()",
        )
    if not isinstance(start, Fit | None):
        raise ArgumentError("start is not a fit", why=f"got {start!r}", remedy="pass what fit(...) returned")
    if guide is not None and method is not None and not method.uses_guide:
        raise ArgumentError(f"{type(method).__name__} has no use for a guide", remedy="leave guide out")
    if seed is not None and not (isinstance(seed, Real) and seed % 1 == 0 and seed >= 0):
        raise ArgumentError("a seed is a whole number from 0", why=f"got {seed!r}")
    if dtype not in (None, torch.float32, torch.float64):
        raise ArgumentError("dtype must be torch.float32 or torch.float64", why=f"got {dtype}")


def encode(pair: Pair, frame: pd.DataFrame) -> dict[str, Tensor]:
    """Return the tensors of a table, by the pair's schema."""
    if pair.schema is None:
        raise DataError(
            "a table was given to a model without a schema",
            why=f"columns {list(frame.columns)[:10]}",
            remedy="pass a dictionary of its arguments, or a pair such as BayesianMVN(infer_schema(frame))",
        )
    if not len(frame):
        raise DataError("the table has no rows", remedy="pass at least one row")
    return arguments_from_frame(pair.model, frame, pair.schema)


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


def shapes(result: Fit) -> dict[str, dict[str, list[int]]]:
    """Return the shapes of learnt parameters in the vector of all, in order, if there are some."""
    if result.parameters is None:
        return {}
    return {"parameters": {name: list(shape) for name, shape in result.parameters.layout.shapes.items()}}


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}
