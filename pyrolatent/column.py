"""One column: what it measures, and how its cells become numbers and come back.

A cell in the user's units is encoded in two steps: positive values are replaced by their logs and
labels by their position in `categories`; then `location` is subtracted and the rest divided by
`scale`.  Decoding goes the other way, and puts whole numbers and labels back where they were.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import ArgumentError, DataError

KINDS = ("real", "positive", "count", "ordinal", "binary", "categorical", "datetime", "identifier")
UNMODELLED = ("datetime", "identifier")

Label = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """What one column holds.

    Args:
        name: Its label in the frame, text or an integer.
        kind: One of "real", "positive", "count", "ordinal", "binary", "categorical", and of
            "datetime" and "identifier", which pass through untouched.
        dtype: `str(series.dtype)`.
        location: Mean of the observed training cells, of their logs for a positive column.
        scale: Their standard deviation (divisor: the number of cells), on the same scale.
        lower: Smallest observed value in the user's units; 0 for labels.
        upper: Largest observed value in the user's units; the last code for labels.
        categories: The labels of a binary or categorical column, in the order of their codes.

    Raises:
        ArgumentError: If `kind` is unknown.
    """

    name: str | int
    kind: str
    dtype: str
    location: float = 0.0
    scale: float = 1.0
    lower: float = 0.0
    upper: float = 0.0
    categories: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(
                f"unknown kind {self.kind!r}",
                where=f"column {self.name!r}",
                remedy=f"Use one of {', '.join(KINDS)}",
            )

    @property
    def modelled(self) -> bool:
        """Whether the column enters a model."""
        return self.kind not in UNMODELLED

    @property
    def whole(self) -> bool:
        """Whether completed cells are whole numbers (or codes) within the observed range."""
        integer = pd.api.types.is_integer_dtype(pd.api.types.pandas_dtype(self.dtype))
        return integer or self.kind in ("count", "ordinal", "binary", "categorical")

    def encode(self, series: pd.Series) -> NDArray[np.float64]:
        """Return the encoded cells of `series` (N,), NaN where missing.

        Raises:
            DataError: If a cell is text where numbers are expected, infinite, not positive in a
                positive column, or of a category not seen in training.
        """
        values = self._codes(series) if self.categories else numbers(series)
        if self.kind == "positive":
            values = self._logs(series, values)
        return (values - self.location) / self.scale

    def decode(self, encoded: NDArray[np.float64], index: pd.Index) -> pd.Series:
        """Return the encoded cells (N,) as a series of dtype `dtype` in the user's units."""
        values = encoded * self.scale + self.location
        if self.kind == "positive":
            values = np.exp(values)
        if self.whole:
            values = np.clip(np.rint(values), self.lower, self.upper)
        if self.categories:
            return self._labels(values.astype(np.int64), index)
        series = pd.Series(values.astype(np.int64) if self.whole else values, index, name=self.name)
        return series.astype(pd.api.types.pandas_dtype(self.dtype))

    def _labels(self, codes: NDArray[np.int64], index: pd.Index) -> pd.Series:
        labels = pd.Index(list(self.categories))
        series = pd.Series(labels.take(codes), index, name=self.name)
        if self.dtype == "category":
            return series.astype(pd.CategoricalDtype(labels))
        return series.astype(pd.api.types.pandas_dtype(self.dtype))

    def _codes(self, series: pd.Series) -> NDArray[np.float64]:
        observed = series.notna().to_numpy()
        codes = np.full(len(series), np.nan)
        codes[observed] = pd.Index(list(self.categories)).get_indexer(pd.Index(series[observed]))
        if (codes < 0).any():
            known = ", ".join(repr(label) for label in self.categories[:12])
            why = f"the categories seen in training are {known}"
            remedy = "Correct the cell, mark it missing, or train on rows that have this category"
            raise cell_error("unknown category", series, codes < 0, why=why, remedy=remedy)
        return codes

    def _logs(self, series: pd.Series, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if (values <= 0).any():
            why = f"all training values were positive ({self.lower:g} to {self.upper:g})"
            remedy = "Correct the cell, mark it missing, or train on rows with such values"
            raise cell_error("value that is not positive", series, values <= 0, why=why, remedy=remedy)
        return np.log(values)


def numbers(series: pd.Series) -> NDArray[np.float64]:
    """Return the cells of a numeric column (N,), NaN where missing.

    Raises:
        DataError: If a cell is infinite or not a number, with its row and value.
    """
    if not holds_numbers(series):
        raise not_numbers(series)
    observed = series.notna().to_numpy()
    values = np.full(len(series), np.nan)
    values[observed] = series[observed].to_numpy(np.float64)
    if np.isinf(values).any():
        remedy = "Correct the cell or mark it missing"
        raise cell_error("infinite value", series, np.isinf(values), remedy=remedy)
    return values


def holds_numbers(series: pd.Series) -> bool:
    """Whether every observed cell is a number (or a bool of a boolean dtype)."""
    if series.dtype == object:
        inferred = pd.api.types.infer_dtype(series, skipna=True)
        return inferred in ("integer", "floating", "mixed-integer-float", "empty")
    return series.dtype.kind in "biuf" or bool(series.isna().all())


def not_numbers(series: pd.Series) -> DataError:
    """Return the error for a column that should hold numbers, at the first cell that does not."""
    observed = series.notna().to_numpy()
    bad = observed & pd.to_numeric(series.astype(str), errors="coerce").isna().to_numpy()
    if bad.any():
        good = f"{observed.sum() - bad.sum()} of its {observed.sum()} observed cells are numbers"
        remedy = 'Correct the cell, mark it missing, or, if these are labels, use .astype("category")'
        return cell_error("text in a column of numbers", series, bad, why=good, remedy=remedy)
    remedy = 'Convert it with pandas.to_numeric or, if these are labels, with .astype("category")'
    return cell_error("numbers stored as text", series, observed, remedy=remedy)


def cell_error(
    what: str, series: pd.Series, bad: NDArray[np.bool_], *, why: str = "", remedy: str = ""
) -> DataError:
    """Return the error for the first of the cells of `series` marked in `bad` (N,)."""
    first = [int(bad.argmax())]
    row: Any = series.index[first].tolist()[0]
    value: Any = series.iloc[first].tolist()[0]
    more = f" (and in {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
    where = f"column {series.name!r}, row {row!r}"
    return DataError(f"{what}: {value!r}{more}", where=where, why=why, remedy=remedy)
