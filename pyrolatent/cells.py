"""Missing cells as a table of their own, one line for each, and how well known values were met."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.column import numbers
from pyrolatent.errors import DataError
from pyrolatent.imputations import Imputations


def cell_table(
    imputations: Imputations, probability: float = 0.9, truth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List the missing cells with what their draws say.

    Args:
        imputations: Draws of the missing cells of a table.
        probability: That of the central interval from `lower` to `upper`.
        truth: The same rows, in the same order, with the values that were hidden.

    Returns:
        One line for each missing cell, in the table's units: `row` (its label), `column`, `mean`,
        `sd`, `lower`, `upper`, and `truth` if it was given.  Where columns of labels are completed,
        also `label`, the one drawn most often, and `share`, how often; numbers and labels leave
        each other's entries empty.

    Raises:
        ArgumentError: The probability is not between 0 and 1.
        DataError: `truth` has other rows or lacks columns.
    """
    rows, columns = imputations.holes
    lower, upper = imputations.interval(probability)
    frames = {"mean": imputations.mean, "sd": imputations.sd, "lower": lower, "upper": upper}
    if truth is not None:
        frames["truth"] = true_numbers(truth, imputations)
    names = list(imputations.schema.names)
    table = {
        "row": imputations.frame.index[rows].tolist(),
        "column": [names[column] for column in columns],
        **{name: frame.reindex(columns=names).to_numpy()[rows, columns] for name, frame in frames.items()},
    }
    return pd.DataFrame(table | likeliest(imputations))


def likeliest(imputations: Imputations) -> dict[str, NDArray[Any]]:
    """Return `label` and `share` of the missing cells, if there are columns of labels."""
    labelled = [(d, c) for d, c in enumerate(imputations.schema.modelled) if c.categories]
    if not labelled:
        return {}
    _, columns = imputations.holes
    label, share = np.full(len(columns), None, dtype=object), np.full(len(columns), np.nan)
    for d, column in labelled:
        probabilities = imputations.probabilities(column.name)
        label[columns == d] = probabilities.columns[probabilities.to_numpy().argmax(1)]
        share[columns == d] = probabilities.max(axis=1)
    return {"label": label, "share": share}


def true_numbers(truth: pd.DataFrame, imputations: Imputations) -> pd.DataFrame:
    """Return the completed columns of `truth` that hold numbers.

    Raises:
        DataError: It has other rows than the completed table, or lacks columns.
    """
    names = list(imputations.schema.names)
    lacking = [name for name in names if name not in truth.columns]
    if lacking or len(truth) != len(imputations.frame):
        raise DataError(
            "the true values belong to another table",
            why=f"{len(truth)} rows, {len(imputations.frame)} were completed; columns lacking: {lacking}",
            remedy="give the complete table with the same rows in the same order",
        )
    columns = [column.name for column in imputations.schema.modelled if not column.categories]
    return pd.DataFrame({name: numbers(truth[name]) for name in columns})


def coverage(cells: pd.DataFrame) -> float:
    """Return the share of cells, as `cell_table` lists them, whose truth lies in its interval."""
    known = cells[cells["truth"].notna()]
    return float(known["truth"].between(known["lower"], known["upper"]).mean())
