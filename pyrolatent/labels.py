"""What the axes of a fit's tensors are called: dimensions and their labels.

A plate gives its name to its axis, and the data plate of a table the labels of the table's index.
What a pair calls the first axis of a site comes before that.  With a table, any other axis as long as
there are modelled columns is `feature`, labelled by their names, and a second one in the same tensor
`feature_bis`.  All further axes are called as ArviZ does, `SITE_dim_0`.  Exports and summaries share these
names.
"""

from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.sites import Site
from pyrolatent.result import Fit

COLUMN_DIMS = ("feature", "feature_bis")
SAMPLE_DIMS = ("chain", "draw")

Axes = dict[str, NDArray[Any]]


def tensor_axes(fit: Fit, name: str, shape: tuple[int, ...], plates: Mapping[str, int]) -> Axes:
    """Return dimension -> labels of each axis of a tensor; `plates` gives each plate's axis."""
    axes: Axes = {}
    by_axis = {axis: plate for plate, axis in plates.items()}
    columns = [] if fit.schema is None else list(fit.schema.names)
    first = fit.pair.first_axes.get(name)
    for axis, length in enumerate(shape):
        free = [dim for dim in COLUMN_DIMS if dim not in axes]
        if axis == 0 and first is not None and length == len(first[1]):
            axes[first[0]] = labels(pd.Index(first[1]))
        elif axis in by_axis:
            axes[plate_dim(fit, by_axis[axis])] = plate_labels(fit, by_axis[axis], length)
        elif length == len(columns) and free:
            axes[free[0]] = labels(pd.Index(columns))
        else:
            axes[f"{plain(name)}_dim_{axis}"] = np.arange(length)
    return axes


def scalar_names(fit: Fit, name: str, shape: tuple[int, ...]) -> list[str]:
    """Return the name of each element of a site in row-major order, such as `mean[age]`."""
    if not shape:
        return [name]
    axes = tensor_axes(fit, name, shape, site_plates(fit, name))
    return [f"{name}[{', '.join(map(str, label))}]" for label in product(*axes.values())]


def variable_name(fit: Fit, name: str) -> str:
    """Return the name under which a site or an entry of the data is exported.

    A path separator would split the name in a file, and a variable cannot be called as a dimension.
    """
    taken = (*SAMPLE_DIMS, plate_dim(fit, DATA_PLATE))
    return f"{plain(name)}_values" if plain(name) in taken else plain(name)


def plate_dim(fit: Fit, plate: str) -> str:
    """Return the dimension of a plate: its name, unless a site or another dimension has it."""
    taken = (*SAMPLE_DIMS, *COLUMN_DIMS, *all_sites(fit))
    return f"{plain(plate)}_dim" if plate in taken else plain(plate)


def plate_labels(fit: Fit, plate: str, length: int) -> NDArray[Any]:
    """Return the index of the table for its rows, else 0, 1, ..."""
    frame = fit.problem.frame
    if plate == DATA_PLATE and frame is not None and len(frame) == length:
        return labels(frame.index)
    return np.arange(length)


def site_plates(fit: Fit, name: str) -> Mapping[str, int]:
    """Return plate -> axis of a site; none for a name that is not a site's."""
    sites = all_sites(fit)
    return sites[name].plates if name in sites else {}


def method_text(method: Any) -> str:
    """Return a method as it would be called; functions and classes among its settings by their names."""
    settings = {field.name: getattr(method, field.name) for field in fields(method)}
    texts = {name: getattr(value, "__name__", repr(value)) for name, value in settings.items()}
    return f"{type(method).__name__}({', '.join(f'{name}={text}' for name, text in texts.items())})"


def all_sites(fit: Fit) -> dict[str, Site]:
    """Return the latent, deterministic and observed sites of the model."""
    sites = fit.sites
    return {**sites.latents, **sites.discrete, **sites.deterministics, **sites.observed}


def labels(index: pd.Index) -> NDArray[Any]:
    """Return the labels of `index` as numbers or times where a netCDF file can hold them, else as text."""
    if isinstance(index, pd.MultiIndex):
        return np.array([", ".join(map(str, label)) for label in index], dtype=str)
    zoned = isinstance(index.dtype, pd.DatetimeTZDtype)
    if index.dtype.kind in "iufM" and not (zoned or index.hasnans):
        return index.to_numpy()
    return np.array([str(label) for label in index], dtype=str)


def plain(name: str) -> str:
    """Return a name without path separators."""
    return name.replace("/", ".")
