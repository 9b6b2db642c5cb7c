"""What a column measures, guessed from its dtype and its observed cells (the rules: `schema`)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.column import Column, Label, holds_numbers, not_numbers, numbers
from pyrolatent.errors import DataError

MOST_LEVELS = 10  # distinct values of an ordinal column, and their largest span
LARGEST_EXACT = 2**53  # from here on neighbouring integers are one number in double precision
NEARLY_ALL = 0.9  # share of distinct labels above which a column names its rows
TIMES = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")
DECIMAL_COMMA = r"[-+]?\d*,\d+"
ISO_DATE = r"\d{4}-\d{2}-\d{2}([T ].*)?"


def infer_column(series: pd.Series, *, standardise: bool) -> Column:
    """Return what `series` (N,) holds, learnt from its observed cells.

    Raises:
        DataError: If it is all missing, constant, holds an infinite value, mixes types, or holds
            text and numbers.
    """
    if _holds_times(series):
        return Column(_name(series), "datetime", str(series.dtype))
    if holds_numbers(series):
        return _infer_numbers(series, standardise=standardise)
    _check_labels(series)
    return _infer_labels(series)


def _infer_numbers(series: pd.Series, *, standardise: bool) -> Column:
    values = numbers(series)
    if _count_distinct(series) == 2:
        return _labelled(series, "binary", _distinct_labels(series))
    kind = _kind_of_numbers(series, values)
    if kind == "identifier":
        return Column(_name(series), kind, str(series.dtype))
    encoded = np.log(values) if kind == "positive" else values
    location, scale = _moments(series, encoded) if standardise else (0.0, 1.0)
    lower, upper = float(np.nanmin(values)), float(np.nanmax(values))
    return Column(_name(series), kind, str(series.dtype), location, scale, lower, upper)


def _infer_labels(series: pd.Series) -> Column:
    distinct = _count_distinct(series)
    labels = _distinct_labels(series)
    if len(labels) == 2:
        return _labelled(series, "binary", labels)
    if distinct > NEARLY_ALL * series.count():
        return Column(_name(series), "identifier", str(series.dtype))
    return _labelled(series, "categorical", labels)


def _labelled(series: pd.Series, kind: str, labels: list[Label]) -> Column:
    if not all(isinstance(label, Label) for label in labels):
        raise DataError(
            "categories that are not text, numbers or booleans",
            where=f"column {series.name!r}",
            why=f"the first is {labels[0]!r}",
            remedy="Convert the column with .astype(str)",
        )
    upper = len(labels) - 1.0
    return Column(_name(series), kind, str(series.dtype), upper=upper, categories=tuple(labels))


def _kind_of_numbers(series: pd.Series, values: NDArray[np.float64]) -> str:
    observed = values[~np.isnan(values)]
    exact = bool(np.abs(observed).max() < LARGEST_EXACT)
    if not exact and series.dtype.kind in "iu":
        return "identifier"
    if exact and (observed == np.rint(observed)).all():
        return _kind_of_integers(values, observed)
    if observed.min() > 0 and abs(_skewness(np.log(observed))) < abs(_skewness(observed)):
        return "positive"
    return "real"


def _kind_of_integers(values: NDArray[np.float64], observed: NDArray[np.float64]) -> str:
    span = observed.max() - observed.min()
    if (np.diff(values) > 0).all() and span < 2 * len(values):
        return "identifier"
    if len(np.unique(observed)) <= MOST_LEVELS and span <= MOST_LEVELS:
        return "ordinal"
    return "count" if observed.min() >= 0 else "real"


def _skewness(values: NDArray[np.float64]) -> float:
    """Return the third standardised moment (values too huge or tiny for it give nan)."""
    with np.errstate(all="ignore"):
        return float((((values - values.mean()) / values.std()) ** 3).mean())


def _moments(series: pd.Series, encoded: NDArray[np.float64]) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        location, scale = float(np.nanmean(encoded)), float(np.nanstd(encoded))
    if not 0 < scale < np.inf:
        raise DataError(
            "values that cannot be standardised",
            where=f"column {series.name!r}",
            why=f"their standard deviation in double precision is {scale!r}",
            remedy="Change its unit so that the values are neither huge nor tiny",
        )
    return location, scale


def _holds_times(series: pd.Series) -> bool:
    if series.dtype.kind in "mM" or isinstance(series.dtype, pd.PeriodDtype):
        return True
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    if inferred == "string":
        texts = series.dropna().drop_duplicates().astype("str")
        return len(texts) > 0 and bool(texts.str.fullmatch(ISO_DATE).all())
    return inferred in TIMES


def _check_labels(series: pd.Series) -> None:
    """Refuse a column, not numeric, whose cells cannot be labels."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    parsed = pd.to_numeric(series.dropna().astype(str), errors="coerce").notna()
    if inferred != "boolean" and parsed.mean() > 0.5:
        raise not_numbers(series)
    commas = series.dropna().astype(str).str.fullmatch(DECIMAL_COMMA).to_numpy()
    if commas.mean() > 0.5:
        raise DataError(
            "numbers with a decimal comma",
            where=f"column {series.name!r}",
            why=f"such as {series.dropna()[commas].iloc[0]!r}",
            remedy='Write them with a point, or read the file with pandas.read_csv(..., decimal=",")',
        )
    if inferred not in ("string", "boolean"):
        raise DataError(
            "cells that are neither numbers, labels nor times",
            where=f"column {series.name!r}",
            why=f"its dtype is {series.dtype} and its cells are {inferred}",
            remedy="Convert the column with .astype(str) or .astype(float), or drop it",
        )


def _count_distinct(series: pd.Series) -> int:
    distinct = series.nunique()
    if distinct > 1:
        return distinct
    where, remedy = f"column {series.name!r}", "Drop the column: nothing can be learnt from it"
    if distinct == 0:
        raise DataError("every cell is missing", where=where, remedy=remedy)
    value = series.dropna().head(1).tolist()[0]
    raise DataError("constant column", where=where, why=f"its only value is {value!r}", remedy=remedy)


def _distinct_labels(series: pd.Series) -> list[Label]:
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.dtype.categories.tolist()
    return series.dropna().drop_duplicates().sort_values().tolist()


def _name(series: pd.Series) -> str | int:
    if isinstance(series.name, str | int):
        return series.name
    raise DataError(
        "column label that is neither text nor an integer",
        where=f"column {series.name!r}",
        remedy="Rename the columns, for example with frame.columns = frame.columns.map(str)",
    )
