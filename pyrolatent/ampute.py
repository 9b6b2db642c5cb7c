"""Amputation: hide cells of a complete table, to see how well they are recovered.

Under "mcar" (missing completely at random) every cell is hidden independently with the same
probability, whatever its value and its neighbours' (Rubin 1976, "Inference and missing data").
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.schema import infer_schema, listing
from pyrolatent.seeds import numpy_generator

MECHANISMS = ("mcar",)


def ampute(
    frame: pd.DataFrame,
    *,
    mechanism: str = "mcar",
    fraction: float = 0.1,
    seed: int = 0,
    columns: Sequence[str | int] | None = None,
) -> pd.DataFrame:
    """Hide cells of a table at random.

    Args:
        frame: The table (N rows).  Cells already missing stay missing.
        mechanism: How cells are chosen: "mcar".
        fraction: Probability that a cell is hidden, between 0 and 1.
        seed: Seed of the draw.
        columns: Columns to hide cells of; by default all but datetimes and identifiers.

    Returns:
        A copy of `frame` with holes.  In the chosen columns integers become the nullable integer
        of the same width (int64 becomes Int64) and bool becomes boolean; other dtypes stay.

    Raises:
        ArgumentError: If a setting has no meaning.
        DataError: If no schema can be inferred, or a column is left with fewer than two observed
            cells.
    """
    _check_settings(mechanism, fraction)
    names = _chosen(infer_schema(frame).names, columns)
    random = numpy_generator(seed, "ampute").random((len(frame), len(names)))
    holes = frame.copy()
    for name, draw in zip(names, random.T, strict=True):
        holes[name] = _hide(frame[name], draw < fraction)
    return holes


def _check_settings(mechanism: str, fraction: float) -> None:
    if mechanism not in MECHANISMS:
        allowed = ", ".join(repr(name) for name in MECHANISMS)
        raise ArgumentError(f"unknown mechanism {mechanism!r}", remedy=f"Use one of {allowed}")
    if not 0 < fraction < 1:
        raise ArgumentError("fraction must lie between 0 and 1, both excluded", why=f"got {fraction!r}")


def _chosen(modelled: Sequence[str | int], columns: Sequence[str | int] | None) -> Sequence[str | int]:
    if columns is None:
        return modelled
    unknown = [name for name in columns if name not in modelled]
    if unknown:
        raise ArgumentError(
            f"columns {listing(unknown)} cannot be amputed",
            why=f"those that can be modelled are {listing(modelled)}",
        )
    return columns


def _hide(series: pd.Series, hidden: NDArray[np.bool_]) -> pd.Series:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biu":
        series = pd.Series(pd.array(series.to_numpy()), series.index, name=series.name)
    holes = series.mask(hidden)
    if holes.count() < 2:
        raise DataError(
            "fewer than two observed cells would be left",
            where=f"column {series.name!r}",
            why=f"{hidden.sum()} of {len(series)} cells are hidden",
            remedy="Use a smaller fraction, more rows, or leave the column out of `columns`",
        )
    return holes
