"""Outcomes and covariates as numbers; or why they are none, and what to do about it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd

from pyrolatent.column import cell_error, check_varies, holds_numbers, numbers
from pyrolatent.declared import check_numbers_suit
from pyrolatent.errors import DataError
from pyrolatent.kinds import DECIMAL_COMMA, holds_times
from pyrolatent.models.abtest import KINDS, Family, as_dummies
from pyrolatent.schema import listing

ANSWERS = ({"no": 0.0, "yes": 1.0}, {"false": 0.0, "true": 1.0}, {"n": 0.0, "y": 1.0}, {"f": 0.0, "t": 1.0})
OTHER_FAMILIES: Mapping[str, str] = {  # by kind of outcomes
    "positive": 'amounts that may be 0 have family "revenue", numbers of either sign "normal" or "student"',
    "count": 'numbers that are no counts have family "normal", "student", "lognormal" or "revenue"',
}


def outcome_numbers(series: pd.Series, family: Family) -> pd.Series:
    """Return outcomes `(N,)` as numbers, nan where missing; of yes and no as 1 and 0.

    Raises:
        DataError: They are no numbers, or not those of the family, or all alike.
    """
    check_varies(series)
    if family == "bernoulli":
        return successes(series)
    truth = pd.api.types.infer_dtype(series, skipna=True) == "boolean"
    if truth or (not holds_numbers(series) and answers(series) is not None):
        what, remedy = f"{family} outcomes are numbers, and these are yes or no", 'pass family="bernoulli"'
        raise DataError(what, where=f"column {series.name!r}", remedy=remedy)
    found, kind = as_floats(series, "an outcome"), KINDS[family]
    with advising(f"Correct the cell, or mark it missing; {OTHER_FAMILIES.get(kind, '')}"):
        check_numbers_suit(found, found.to_numpy(), kind)
    return found


def covariate_numbers(series: pd.Series) -> pd.Series:
    """Return a covariate `(N,)` as numbers, nan where missing.

    Raises:
        DataError: They are no numbers, or all alike.
    """
    with advising("leave it out of covariates="):
        check_varies(series)
    return as_floats(series, "a covariate", f"if these are labels, {as_dummies(str(series.name))}")


def successes(series: pd.Series) -> pd.Series:
    """Return 1 where outcomes `(N,)` are yes, 0 where they are no, nan where they are missing.

    Raises:
        DataError: There are others, or it is not plain which of two is the success.
    """
    found = answers(series)
    if found is not None:
        return found
    different = series.dropna().unique().tolist()
    shortest = min(different, key=lambda label: len(str(label)))  # "bought", and not "not bought"
    remedy = f"say which is the success, such as {success(series, f'== {shortest!r}')}"
    if len(different) > 2 and holds_numbers(series):
        remedy = f'numbers have another family, such as "normal"; or make {success(series, "> 0")}'
    raise DataError(
        "bernoulli outcomes are yes or no, true or false, 1 or 0", where=f"column {series.name!r}",
        why=f"its values are {listing(different, 5)}", remedy=remedy,
    )  # fmt: skip


def success(series: pd.Series, condition: str) -> str:
    """Return the line that makes successes of the cells where a condition holds, and keeps holes."""
    name = f"frame[{series.name!r}]"
    known = f"({name} {condition}).where({name}.notna())" if series.hasnans else f"{name} {condition}"
    return f"{name} = {known}"


def answers(series: pd.Series) -> pd.Series | None:
    """Return the same, or None where it is not plain which outcomes are successes.

    It is of 1 and 0, and of the words of `ANSWERS` in any case, with or without spaces around.
    """
    if holds_numbers(series):
        found = floats(series)
        return found if found.dropna().isin([0.0, 1.0]).all() else None
    different = series.dropna().unique().tolist()
    read = {label: label.strip().lower() for label in different if isinstance(label, str)}
    if len(read) == len(different):
        for pair in ANSWERS:
            if set(read.values()) <= set(pair):
                codes = {label: pair[text] for label, text in read.items()}
                return series.astype(object).map(codes).astype(float)
    return None


def as_floats(series: pd.Series, part: str, of_labels: str = "") -> pd.Series:
    """Return a column `(N,)` as numbers, nan where missing.

    Args:
        series: The column.
        part: What it is in the test.
        of_labels: What to do if it holds labels.

    Raises:
        DataError: It holds times, labels or text, or an infinite number.
    """
    if holds_numbers(series):
        return floats(series)
    where, name = f"column {series.name!r}", f"frame[{series.name!r}]"
    if holds_times(series):
        t = name if series.dtype.kind in "mM" else f"{name}.astype('datetime64[ns]')"
        remedy = f"pass a number of days instead, as of t = {t}: (t - t.min()) / pandas.Timedelta(days=1)"
        raise DataError(f"times where {part} is a number", where=where, remedy=remedy)
    held = pd.api.types.infer_dtype(series, skipna=True)
    if held == "categorical":
        remedy = of_labels or f"if the levels are numbers, make {name} = {name}.astype(float)"
        raise DataError(f"categories where {part} is a number", where=where, remedy=remedy)
    if held == "string" or held.startswith("mixed"):
        raise of_text(series, part, of_labels)
    remedy = f"make {name} = {name}.astype(float)"
    raise DataError(f"{held} cells where {part} is a number", where=where, remedy=remedy)


def of_text(series: pd.Series, part: str, of_labels: str) -> DataError:
    """Return the error for text where numbers are needed, at the first cell that is none."""
    texts, known, name = series.astype(str), series.notna().to_numpy(), f"frame[{series.name!r}]"
    wrong = known & pd.to_numeric(texts, errors="coerce").isna().to_numpy()
    bad, remedy = known, f"make {name} = pandas.to_numeric({name})"
    if texts[known].str.strip().str.fullmatch(DECIMAL_COMMA).mean() > 0.5:
        remedy = 'read the file with pandas.read_csv(..., decimal=",")'
    elif wrong.any():
        strip = f"{name} = pandas.to_numeric({name}.str.strip('€$ '))"
        bad, remedy = wrong, f"mark it missing, or take off what is no number, as {strip} does"
        remedy = f"{of_labels}; else {remedy}" if of_labels else remedy
    return cell_error(f"text where {part} is a number", series, bad, remedy=remedy)


def floats(series: pd.Series) -> pd.Series:
    """Return a column of numbers or truth values `(N,)` as float64."""
    return pd.Series(numbers(series), series.index, name=series.name)


@contextmanager
def advising(remedy: str) -> Iterator[None]:
    """Say what to do about a column in place of what an error says of it, which is about schemas."""
    try:
        yield
    except DataError as error:
        raise DataError(error.what, where=error.where, why=error.why, remedy=remedy) from error
