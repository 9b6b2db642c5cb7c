"""What a column measures, and what is learnt from its observed cells (the rules: `schema`)."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent import links
from pyrolatent.column import (
    UNMODELLED,
    Column,
    Label,
    check_varies,
    holds_numbers,
    not_numbers,
    numbers,
)
from pyrolatent.declared import Declared, check_labels_suit, check_numbers_suit
from pyrolatent.errors import DataError

MOST_LEVELS = 10  # distinct values of an ordinal column, and their largest span
LARGEST_EXACT = 2**53  # from here on neighbouring integers are one number in double precision
NEARLY_ALL = 0.9  # share of distinct labels above which a column names its rows
NEAR_END = 0.1  # how close to 0 and to 1 a column of the unit interval comes
TIMES = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")
DECIMAL_COMMA = r"[-+]?\d*,\d+"
ISO_DATE = r"\d{4}-\d{2}-\d{2}([T ].*)?"


def infer_column(series: pd.Series, *, standardise: bool, declared: Declared | None = None) -> Column:
    """Return what `series` (N,) holds, learnt from its observed cells.

    Args:
        series: The column.
        standardise: Whether to learn its location and scale.
        declared: Its kind, where it is not to be guessed.

    Raises:
        DataError: If it is all missing, constant, holds an infinite value, mixes types, holds text
            and numbers, or contradicts what is declared.
    """
    kind = guess_kind(series) if declared is None else declared.kind
    if kind not in UNMODELLED:
        check_varies(series)
    return learn_column(series, declared or Declared(kind), standardise=standardise)


def guess_kind(series: pd.Series) -> str:
    """Return the kind of `series` (N,) by the rules of `schema`.

    Raises:
        DataError: If it holds an infinite value, mixes types, or holds text and numbers.
    """
    if holds_times(series):
        return "datetime"
    if holds_numbers(series):
        return _kind_of_numbers(series, numbers(series))
    _check_labels(series)
    return _kind_of_labels(series)


def learn_column(series: pd.Series, declared: Declared, *, standardise: bool) -> Column:
    """Return the column of this kind that `series` (N,) makes.

    Raises:
        DataError: If a cell contradicts the kind, or the values cannot be standardised.
    """
    kind = declared.kind
    if kind in UNMODELLED:
        return Column(_name(series), kind, str(series.dtype))
    labels = declared.categories or _labels(series, kind)
    column = _of_labels(series, kind, labels) if labels else _of_numbers(series, kind)
    if not standardise or kind in ("binary", "categorical"):
        return column
    location, scale = _moments(series, column.encode(series))
    return replace(column, location=location, scale=scale)


def _of_numbers(series: pd.Series, kind: str) -> Column:
    values = numbers(series)
    check_numbers_suit(series, values, kind)
    margin = links.squeeze_margin(values) if kind == "unit" else 0.0
    lower, upper = float(np.nanmin(values)), float(np.nanmax(values))
    return Column(_name(series), kind, str(series.dtype), lower=lower, upper=upper, margin=margin)


def _labels(series: pd.Series, kind: str) -> tuple[Label, ...]:
    """Return the labels of a column of this kind; none where its cells are numbers to a model."""
    of_labels = kind in ("binary", "categorical") or (kind == "ordinal" and not holds_numbers(series))
    labels = _distinct_labels(series) if of_labels else []
    check_labels_suit(series, kind, labels)
    return tuple(labels)


def _of_labels(series: pd.Series, kind: str, labels: tuple[Label, ...]) -> Column:
    column = Column(_name(series), kind, str(series.dtype), upper=len(labels) - 1.0, categories=labels)
    column.values(series)  # refuses a cell that is none of them
    return column


def _kind_of_numbers(series: pd.Series, values: NDArray[np.float64]) -> str:
    observed = values[~np.isnan(values)]
    distinct = len(np.unique(observed))
    if distinct < 2:
        return "real"
    if distinct == 2:
        return "binary"
    exact = bool(np.abs(observed).max() < LARGEST_EXACT)
    if not exact and series.dtype.kind in "iu":
        return "identifier"
    if exact and (observed == np.rint(observed)).all():
        return _kind_of_integers(values, observed)
    if distinct > MOST_LEVELS and _fills_the_unit_interval(observed):
        return "unit"
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


def _fills_the_unit_interval(observed: NDArray[np.float64]) -> bool:
    """Whether values reach from one end to the other, and are not rescaled to do so."""
    low, high = observed.min(), observed.max()
    rescaled = (observed == 0).sum() == 1 and (observed == 1).sum() == 1
    return bool(0 <= low < NEAR_END and 1 - NEAR_END < high <= 1 and not rescaled)


def _kind_of_labels(series: pd.Series) -> str:
    labels, distinct = _distinct_labels(series), series.nunique()
    if len(labels) == 2:
        return "binary"
    if distinct > 1 and distinct > NEARLY_ALL * series.count():
        return "identifier"
    return "ordinal" if _ordered(series) else "categorical"


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


def holds_times(series: pd.Series) -> bool:
    """Whether the cells are times, durations or periods, or text that is all ISO dates."""
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


def _ordered(series: pd.Series) -> bool:
    return isinstance(series.dtype, pd.CategoricalDtype) and bool(series.dtype.ordered)


def _distinct_labels(series: pd.Series) -> list[Label]:
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.dtype.categories.tolist()
    different = series.dropna().drop_duplicates()
    try:
        return different.sort_values().tolist()
    except TypeError as error:
        types = sorted({type(label).__name__ for label in different})
        raise DataError(
            "labels of several types",
            where=f"column {series.name!r}",
            why=", ".join(types),
            remedy="Convert the column with .astype(str)",
        ) from error


def _name(series: pd.Series) -> str | int:
    if isinstance(series.name, str | int):
        return series.name
    raise DataError(
        "column label that is neither text nor an integer",
        where=f"column {series.name!r}",
        remedy="Rename the columns, for example with frame.columns = frame.columns.map(str)",
    )
