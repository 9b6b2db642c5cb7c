"""What is asked of a trained autoencoder about a test: its table, columns, labels, and bootstrap samples."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.choices import INTERVAL, Range
from pyrolatent.abtest.trial import likely_control
from pyrolatent.column import Column
from pyrolatent.declared import Declared
from pyrolatent.errors import ArgumentError, DataError, FitWarning, ModelError
from pyrolatent.kinds import learn_column
from pyrolatent.latents import check_encodes
from pyrolatent.predict import observes_matrix
from pyrolatent.result import Fit
from pyrolatent.schema import Schema, check_columns, listing

AT_ONCE = 2**22  # rows of bootstrap samples together
Array = NDArray[np.float64]


def table_of(fit: Fit, frame: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows to look at.

    Raises:
        ArgumentError: There is no fit.
        ModelError: The fit is not to the rows of a table, or no guide makes latents from these.
        DataError: There are none, as after a fit was loaded without its data.
    """
    if not isinstance(fit, Fit):
        raise ArgumentError("there is no fit", why=f"got {fit!r}", remedy="pass what fit(...) returns")
    check_encodes(fit)
    if fit.problem.frame is None or not observes_matrix(fit, schema_of(fit)):
        raise ModelError(
            "arms are labels in a column of a table, and the fit is to something else",
            remedy="fit models.VAE(infer_schema(frame)) to the table of the test",
        )
    table = fit.problem.frame if frame is None else frame
    if table.empty:
        raise DataError("there are no rows", remedy="pass the table, frame=")
    return table


def schema_of(fit: Fit) -> Schema:
    """Return the schema of the fit's table, one without columns for a fit to tensors."""
    return Schema(()) if fit.schema is None else fit.schema


def column_names(fit: Fit) -> tuple[str | int, ...]:
    """Return the columns that the model sees."""
    return schema_of(fit).names


def column_in(fit: Fit, name: str | int) -> Column:
    """Return a column of the fit's table.

    Raises:
        DataError: There is none of that name.
    """
    columns = {column.name: column for column in schema_of(fit).columns}
    if name not in columns:
        why = f"it has {listing([*columns])}"
        raise DataError("the fit's table lacks the column", where=repr(name), why=why)
    return columns[name]


def labels_in(fit: Fit, group: str | int, table: pd.DataFrame | None = None) -> Column:
    """Return the column of the labels; of one that the model does not see, as `table` has it.

    Raises:
        DataError: It holds no labels, or all are the same.
    """
    column = column_in(fit, group)
    if column.kind == "skip" and table is not None:
        check_columns(table, [group])
        column = learn_column(table[group], Declared("categorical"), standardise=False)
    if column.kind not in ("binary", "categorical"):
        why = f"its kind is {column.kind!r}"
        declare = f'infer_schema(frame, kinds={{{group!r}: "categorical"}})'
        remedy = f"name the column that says who was treated how, or declare it: {declare}"
        raise DataError("the column holds no arms", where=f"column {group!r}", why=why, remedy=remedy)
    if len(column.categories) < 2:
        why, remedy = listing(column.categories), "pass rows of both arms"
        raise DataError(
            "there are not two different labels", where=f"column {group!r}", why=why, remedy=remedy
        )
    return column


def code_of(column: Column, arm: Any) -> int:
    """Return the code of an arm.

    Raises:
        ArgumentError: There is no such arm.
    """
    if arm not in column.categories:
        raise ArgumentError(f"there is no arm {arm!r}", why=f"the arms are {listing(column.categories)}")
    return column.categories.index(arm)


def control_of(column: Column, control: Any) -> int:
    """Return the code of the arm that others are compared with.

    Raises:
        ArgumentError: There is no such arm.
    """
    return likely_control(column.categories) if control is None else code_of(column, control)


def labelled(column: Column, cells: pd.Series) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which rows have a label `(N,)`, and the codes of those that have.

    Raises:
        DataError: An arm has fewer than two rows, so that nothing varies in it.
    """
    codes = column.values(cells)
    known = ~np.isnan(codes)
    labels = codes[known].astype(np.int64)
    counts = np.bincount(labels, minlength=len(column.categories))
    few = {name: int(count) for name, count in zip(column.categories, counts, strict=True) if count < 2}
    if few:
        raise DataError(
            "an arm has fewer than two labelled rows",
            where=f"column {column.name!r}",
            why=", ".join(f"{name!r}: {count}" for name, count in list(few.items())[:5]),
            remedy="pass rows of all arms, or correct the labels",
        )
    return known, labels


def with_column(table: pd.DataFrame, name: str | int, cell: Any) -> pd.DataFrame:
    """Return the table with all cells of a column alike, missing ones for nan."""
    changed = table.copy()
    changed[name] = cell
    return changed


def parts(number: int, num_rows: int) -> Iterator[int]:
    """Yield numbers that add up to `number`, of samples of rows that are looked at together."""
    most = max(1, AT_ONCE // num_rows)
    for start in range(0, number, most):
        yield min(most, number - start)


def interval_of(values: Array) -> Range:
    """Return the 90 % interval of values `(B,)`."""
    low, high = np.quantile(values, INTERVAL)
    return float(low), float(high)


def row_counts(random: np.random.Generator, num_rows: int, number: int) -> Array:
    """Return how often each of the rows is in bootstrap samples of them `(number, num_rows)`."""
    rows = random.integers(num_rows, size=(number, num_rows)) + num_rows * np.arange(number)[:, None]
    return np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape).astype(float)


def never_hidden(fit: Fit, name: str | int, called: str) -> tuple[str, ...]:
    """Say that an encoder has to do without a cell that was never missing in its training."""
    mask = fit.data.get("mask")
    if mask is None or not len(mask) or not mask[:, column_names(fit).index(name)].all():
        return ()
    return (
        f"Every row of the fit has its {called}, so the encoder has not learnt to do without, and is rough "
        f"where it is hidden. Fit a table that lacks it in a third of the rows, chosen at random.",
    )


def said(found: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is weak, said aloud."""
    for message in found:
        warnings.warn(message, FitWarning, stacklevel=3)
    return found
