"""Saved fits: a folder of plain files, from which a fit is read back exactly.

`fit.json` holds what was fitted and how, `tensors.safetensors` draws, statistics, diagnostics and
data, `frame.json` the table, and `SHA256SUMS` their checksums (`sha256sum -c SHA256SUMS` checks
them by hand).  Nothing is pickled, so opening somebody's fit runs none of their code.

A user's function is passed again, `load(path, model=...)`.  Without it samples, diagnostics and
data are all there, and only verbs that run the model refuse.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from pyrolatent.capture.context import model_context
from pyrolatent.capture.sites import read_sites
from pyrolatent.errors import ModelError, StoreError
from pyrolatent.folders import SUMS, check_sums, digest, output_folder
from pyrolatent.pair import Model, Pair, check_arguments
from pyrolatent.plain import State, frame_from_dict, frame_to_dict, from_plain, to_plain
from pyrolatent.result import Fit, Problem, Weights
from pyrolatent.saved_parts import (
    ROLES,
    MissingData,
    method_from_dict,
    method_to_dict,
    pair_from_dict,
    pair_to_dict,
    sites_from_dict,
    sites_to_dict,
    with_parameters,
)
from pyrolatent.seeds import generator, seeded

FORMAT = 2
FIT, TENSORS, FRAME = "fit.json", "tensors.safetensors", "frame.json"
PARTS = "stands_on"  # group of what the pair stands on
DTYPES = {"float64": torch.float64, "float32": torch.float32}

Tensors = Mapping[str, Tensor]  # group/name -> tensor


def save(fit: Fit, path: str | os.PathLike[str], include_data: bool = True) -> None:
    """Write a fit into a folder, whole or not at all.

    Args:
        fit: A fit.
        path: A folder that does not exist, or an empty one.
        include_data: Whether to write the data and the table too.  Without them new rows can still
            be predicted and completed, so a fit can be given away where its data cannot.

    Raises:
        StoreError: The folder is not empty or cannot be written, or an entry of the data or a
            column of the table has no plain form.
    """
    with output_folder(path) as folder:
        write_fit(fit, folder, include_data)


def write_fit(fit: Fit, folder: Path, include_data: bool = True) -> None:
    """Write the files of a fit into an empty folder."""
    data = fit.data if include_data and not isinstance(fit.data, MissingData) else None
    tensors = tensors_of(fit, data or {})
    texts = {FIT: fit_to_dict(fit, data, list(tensors))}
    if data is not None and fit.problem.frame is not None:
        texts[FRAME] = frame_to_dict(fit.problem.frame)
    for name, state in texts.items():
        (folder / name).write_text(json.dumps(state), encoding="utf-8")
    (folder / TENSORS).write_bytes(serialise(tensors))
    sums = [f"{digest(folder / name)}  {name}\n" for name in (*texts, TENSORS)]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")


def fit_to_dict(fit: Fit, data: Mapping[str, Any] | None, tensors: list[str]) -> State:
    """Return all of a fit that is neither a tensor nor the table."""
    problem = fit.problem
    constants = {name: value for name, value in (data or {}).items() if not isinstance(value, Tensor)}
    return {
        "format": FORMAT,
        "pair": pair_to_dict(fit.pair),
        "method": method_to_dict(fit.method),
        "pareto_k": None if fit.weights is None else to_plain(fit.weights.pareto_k, "Pareto k"),
        "seed": problem.seed,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "device": str(problem.device),
        "compile": problem.compile,
        "of_table": problem.frame is not None,
        "has_data": data is not None,
        "constants": {name: to_plain(value, f"data entry {name!r}") for name, value in constants.items()},
        "sites": sites_to_dict(fit.sites),
        "tensors": tensors,  # in their order, which the tensor file does not keep
        "warnings": list(fit.warnings),
        "info": to_plain(dict(fit.info), "info"),
    }


def tensors_of(fit: Fit, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return all tensors of a fit by group and name, copied: the file takes none that share memory."""
    groups = {
        "samples": fit.samples,
        "sample_stats": fit.sample_stats,
        "losses": fit.losses,
        "params": fit.params,
        "state": fit.state,
    }
    if fit.weights is not None:
        groups["weights"] = {"raw": fit.weights.raw, "smoothed": fit.weights.smoothed}
    found = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    for site, values in fit.diagnostics.items():
        found |= {f"diagnostics/{name}/{site}": value for name, value in values.items()}
    for part, fitted in fit.pair.stands_on.items():
        found |= {f"{PARTS}/{part}/{name}": value for name, value in fitted.params.items()}
    found |= {f"data/{name}": value for name, value in data.items() if isinstance(value, Tensor)}
    return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}


def load(path: str | os.PathLike[str], model: Model | Pair | None = None) -> Fit:
    """Read a fit that `save` wrote.

    Args:
        path: The folder.
        model: The function, or the pair of your own, that was fitted.  Without it samples, summary
            and export of what is stored work, and verbs that run the model raise.

    Returns:
        The fit, on its device where this machine has it, else on the CPU.

    Raises:
        StoreError: The folder holds no fit, or a file of it was truncated or edited.
        ArgumentError: A model was given for a fit that brings its own.
        ModelError: The model given has other arguments or sites than the one that was fitted.
    """
    folder = Path(path)
    check_sums(folder, (FIT, TENSORS))
    state = json.loads((folder / FIT).read_text(encoding="utf-8"))
    check_format(state, folder)
    stored = load_file(folder / TENSORS)
    tensors = {name: stored[name] for name in state["tensors"]}
    pair = pair_from_dict(state["pair"], model, group(tensors, PARTS))
    problem = problem_from_dict(state, tensors, folder, pair)
    fit = Fit(
        problem=problem,
        method=method_from_dict(state["method"]),
        sites=sites_from_dict(state["sites"]),
        samples=group(tensors, "samples"),
        sample_stats=group(tensors, "sample_stats"),
        diagnostics=by_site(group(tensors, "diagnostics")),
        warnings=tuple(state["warnings"]),
        info=from_plain(state["info"]),
        weights=weights_from_dict(state, tensors),
        losses=group(tensors, "losses"),
        params=group(tensors, "params"),
        state=group(tensors, "state"),
    )
    fit = with_parameters(fit) if state["has_data"] else fit
    if model is not None and state["has_data"]:
        check_model(fit)
    return fit


def weights_from_dict(state: State, tensors: Tensors) -> Weights | None:
    """Return the importance weights of a fit, if it has some."""
    stored = group(tensors, "weights")
    return Weights(**stored, pareto_k=from_plain(state["pareto_k"])) if stored else None


def problem_from_dict(state: State, tensors: Tensors, folder: Path, pair: Pair) -> Problem:
    """Return what was fitted; without data a table has its columns and no rows."""
    device = present(torch.device(state["device"]))
    data: Mapping[str, Any] = MissingData()
    frame = no_rows(pair) if state["of_table"] else None
    if state["has_data"]:
        constants = {name: from_plain(value) for name, value in state["constants"].items()}
        data = {name: value.to(device) for name, value in group(tensors, "data").items()} | constants
    if state["has_data"] and state["of_table"]:
        frame = frame_from_dict(json.loads((folder / FRAME).read_text(encoding="utf-8")))
    dtype = DTYPES[state["dtype"]]
    return Problem(pair, data, frame, state["seed"], dtype, device, state["compile"], progress=False)


def no_rows(pair: Pair) -> pd.DataFrame:
    """Return a table with the pair's columns and no rows."""
    return pd.DataFrame(columns=[column.name for column in pair.schema.columns] if pair.schema else [])


def present(device: torch.device) -> torch.device:
    """Return the device, or the CPU where this machine lacks it."""
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    return device if (device.index or 0) < count else torch.device("cpu")


def group(tensors: Tensors, name: str) -> dict[str, Tensor]:
    """Return the tensors of one group under their own names."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def by_site(diagnostics: Tensors) -> dict[str, dict[str, Tensor]]:
    """Return site -> diagnostic -> values, from keys such as `rhat/mu`."""
    sites: dict[str, dict[str, Tensor]] = {}
    for key, value in diagnostics.items():
        name, _, site = key.partition("/")
        sites.setdefault(site, {})[name] = value
    return sites


def check_model(fit: Fit) -> None:
    """Run the model given to `load` once and compare its sites with those of the fit."""
    problem = fit.problem
    check_arguments(fit.pair, fit.data)
    random = generator(problem.seed, "sites", device=problem.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(problem.seed, "model"))
        stack.enter_context(model_context(problem.dtype, problem.device, validate=True))
        if fit.parameters is not None:
            stack.enter_context(fit.parameters.at(fit.state["parameters"][0]))
        found = sites_to_dict(read_sites(fit.pair.model, fit.data, random))
    expected = sites_to_dict(fit.sites)
    differing = [role for role in ROLES if found[role] != expected[role]]
    if differing:
        role = differing[0]
        raise ModelError(
            "the model is not the one that was fitted",
            why=f"{role} with shapes and plates: it has {found[role]}, the saved fit {expected[role]}",
            remedy="pass the function as it was when it was fitted, or fit again",
        )


def check_format(state: State, folder: Path) -> None:
    """Refuse a fit written in another format."""
    if state["format"] != FORMAT:
        why = f"its format is {state['format']}, and this version reads {FORMAT}"
        remedy = "Install the version of pyrolatent that saved it, named in fit.json under versions"
        raise StoreError("was saved by another version", where=str(folder), why=why, remedy=remedy)
