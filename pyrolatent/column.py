"""One column: what it measures, and how its cells become numbers and come back.

A cell in the user's units is encoded in two steps: labels are replaced by their position in
`categories`, positive values by their logs and proportions by their log-odds (`links`); then
`location` is subtracted and the rest divided by `scale`.  Decoding goes the other way, and puts whole
numbers and labels back where they were.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent import links
from pyrolatent.errors import ArgumentError, DataError

UNMODELLED = ("datetime", "identifier", "skip")
KINDS = ("real", "positive", "unit", "count", "ordinal", "binary", "categorical", *UNMODELLED)

Label = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """What one column holds.

    Args:
        name: Its label in the frame, text or an integer.
        kind: One of "real", "positive", "unit", "count", "ordinal", "binary", "categorical", and of
            "datetime", "identifier" and "skip", which pass through untouched.
        dtype: `str(series.dtype)`.
        location: Mean of the observed training cells, of their logs for a positive column and of
            their log-odds for one of the unit interval.
        scale: Their standard deviation (divisor: the number of cells), on the same scale.
        lower: Smallest observed value in the user's units; 0 for labels.
        upper: Largest observed value in the user's units; the last code for labels.
        categories: The labels of a binary or categorical column, and of an ordinal one that is not
            numbers, in the order of their codes.
        margin: By how much the unit interval is widened on both sides for cells of exactly 0 or 1.

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
    margin: float = 0.0

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

    @property
    def labelled(self) -> bool:
        """Whether the cells are labels, and not two numbers or truth values."""
        text = self.dtype == "category" or any(isinstance(label, str) for label in self.categories)
        return bool(self.categories) and (text or self.kind != "binary")

    def plain(self) -> "Column":
        """Return this column as it is where nobody transforms it: in the user's units, labels as codes."""
        kind = "real" if self.kind in links.LINKED else self.kind
        plain = replace(self, kind=kind, location=0.0, scale=1.0, margin=0.0)
        if self.labelled or self.categories in ((), (0, 1)):
            return plain
        low, high = sorted(float(number) for number in self.categories)
        return replace(plain, kind="real", categories=(), lower=low, upper=high)

    def encode(self, series: pd.Series) -> NDArray[np.float64]:
        """Return the encoded cells of `series` (N,), NaN where missing.

        Raises:
            DataError: If a cell is text where numbers are expected, infinite, not positive in a
                positive column, outside the unit interval, or of a category not seen in training.
        """
        values = self.values(series)
        self._check_range(series, values)
        return (links.to_line(self.kind, values, self.margin) - self.location) / self.scale

    def values(self, series: pd.Series) -> NDArray[np.float64]:
        """Return the cells of `series` (N,) in the user's units, labels as codes, NaN where missing.

        Raises:
            DataError: If a cell is text where numbers are expected, infinite, or of a category not
                seen in training.
        """
        return self._codes(series) if self.categories else numbers(series)

    def decode(self, encoded: NDArray[np.float64], index: pd.Index) -> pd.Series:
        """Return the encoded cells (N,) as a series of dtype `dtype` in the user's units."""
        values = self.in_units(torch.tensor(encoded)).numpy()
        if self.whole:
            values = np.clip(np.rint(values), self.lower, self.upper)
        if self.categories:
            return self._labels(values.astype(np.int64), index)
        series = pd.Series(values.astype(np.int64) if self.whole else values, index, name=self.name)
        return series.astype(pd.api.types.pandas_dtype(self.dtype))

    def in_units(self, encoded: Tensor) -> Tensor:
        """Return encoded cells (...) in the user's units, not rounded; codes of labels stay codes."""
        return links.from_line(self.kind, encoded * self.scale + self.location, self.margin)

    def log_jacobian(self, encoded: Tensor) -> Tensor:
        """Return log |d encoded / d value| at encoded cells (...)."""
        line = encoded * self.scale + self.location
        return links.log_slope(self.kind, line, self.margin) - math.log(self.scale)

    def _labels(self, codes: NDArray[np.int64], index: pd.Index) -> pd.Series:
        labels = pd.Index(list(self.categories))
        series = pd.Series(labels.take(codes), index, name=self.name)
        if self.dtype == "category":
            return series.astype(pd.CategoricalDtype(labels, ordered=self.kind == "ordinal"))
        return series.astype(pd.api.types.pandas_dtype(self.dtype))

    def _codes(self, series: pd.Series) -> NDArray[np.float64]:
        observed = series.notna().to_numpy()
        codes = np.full(len(series), np.nan)
        codes[observed] = pd.Index(list(self.categories)).get_indexer(pd.Index(series[observed]))
        if (codes < 0).any():
            why = f"the known ones are {', '.join(repr(label) for label in self.categories[:12])}"
            remedy = "Correct the cell, mark it missing, or train on rows that have this category"
            raise cell_error("unknown category", series, codes < 0, why=why, remedy=remedy)
        return codes

    def _check_range(self, series: pd.Series, values: NDArray[np.float64]) -> None:
        bad = links.without_image(self.kind, values, self.margin)
        if bad.any():
            why = f"the training values were {self.lower:g} to {self.upper:g}"
            remedy = "Correct the cell, mark it missing, or train on rows with such values"
            raise cell_error(out_of_range(self.kind, self.margin), series, bad, why=why, remedy=remedy)


def out_of_range(kind: str, margin: float) -> str:
    """Return what to call a value that `links.without_image` finds."""
    if kind == "positive":
        return "value that is not positive"
    return "value that is not between 0 and 1" + ("" if margin else ", both excluded")


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
    """Whether every observed cell is a number or a truth value."""
    if series.dtype == object:
        inferred = pd.api.types.infer_dtype(series, skipna=True)
        return inferred in ("integer", "floating", "mixed-integer-float", "boolean", "empty")
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


def check_observed(series: pd.Series) -> None:
    """Refuse a column whose cells are all missing."""
    if not series.notna().any():
        remedy = "Drop the column: nothing can be learnt from it"
        raise DataError("every cell is missing", where=f"column {series.name!r}", remedy=remedy)


def check_varies(series: pd.Series) -> None:
    """Refuse a column with fewer than two distinct values."""
    check_observed(series)
    if series.nunique() == 1:
        where, why = f"column {series.name!r}", f"its only value is {series.dropna().head(1).tolist()[0]!r}"
        remedy = "Drop the column: nothing can be learnt from it"
        raise DataError("constant column", where=where, why=why, remedy=remedy)


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
