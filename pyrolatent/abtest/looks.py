"""The looks at a running test: the rows by then, their analyses, and whether the rule stops there."""

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.analysis import ABResult
from pyrolatent.abtest.checks import check_named, ranges
from pyrolatent.abtest.trial import Trial
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.infer.method import check_least, check_number
from pyrolatent.schema import listing

Analysis = Callable[[pd.DataFrame, str, str | None], ABResult]

UPLIFT = ("absolute", "absolute_low", "absolute_high", "p_better", "p_in_rope")


def in_order(frame: pd.DataFrame, outcome: str, group: str, order: str | None) -> pd.DataFrame:
    """Return the rows as they came in; those of one time in the order of the table.

    Raises:
        DataError: The column is absent, has holes, or values that cannot be ordered.
    """
    if order is None:
        return frame
    check_named(frame, [outcome, group, order])
    where = f"column {order!r}"
    if number := int(frame[order].isna().sum()):
        why = f"{number} of {len(frame)} rows have none"
        raise DataError("the order of rows is not known", where=where, why=why, remedy="leave these rows out")
    try:
        return frame.sort_values(order, kind="stable")
    except TypeError as error:
        remedy = "make them all numbers, or all dates"
        raise DataError("values cannot be ordered", where=where, why=str(error), remedy=remedy) from error


def as_numbers(looks: int | Sequence[int], num_rows: int) -> list[int]:
    """Return the numbers of rows at which to look, rising.

    Raises:
        ArgumentError: A number is no whole one; there is no look, or one at more rows than there are, or at
            none.
    """
    if not isinstance(looks, Iterable):
        check_number("looks", looks)
        check_least("looks", looks, 1)
        if looks > num_rows:
            raise ArgumentError("there are more looks than rows", why=f"{looks} looks at {num_rows} rows")
        return [round(num_rows * k / looks) for k in range(1, looks + 1)]
    for number in looks:
        check_least("looks", number, 1)
    numbers = sorted({int(number) for number in looks})
    if not numbers or numbers[-1] > num_rows:
        raise ArgumentError(
            "looks are no numbers of rows", why=f"got {looks!r}, and the table has {num_rows}",
            remedy=f"pass numbers from 1 to {num_rows}, or how many looks there are to be",
        )  # fmt: skip
    return numbers


def results_at(numbers: Sequence[int], trial: Trial, each: Analysis) -> dict[int, ABResult]:
    """Return number of rows -> the analysis of so many by `each`, without looks that come too early.

    Raises:
        DataError: All of them do.
    """
    parts = {number: trial.table.iloc[:number] for number in numbers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # those of the looks that decide are told at the end
        found = {
            number: each(part, trial.outcome, trial.group)
            for number, part in parts.items()
            if enough(part, trial)
        }
    if not found:
        raise DataError(
            "no look has two different outcomes in each arm",
            where=f"columns {listing([trial.outcome, trial.group])}",
            why=f"looks are at {listing(numbers)} rows",
            remedy="look later",
        )
    return found


def enough(part: pd.DataFrame, trial: Trial) -> bool:
    """Return whether each arm of the test has two different outcomes among these rows."""
    found = ranges(part[trial.outcome], part[trial.group], trial.pair.family)
    return bool((found.reindex(trial.names) > 0).all())


def left_out(numbers: Sequence[int], found: dict[int, ABResult]) -> tuple[str, ...]:
    """Return a warning of looks that came too early."""
    early = [number for number in numbers if number not in found]
    if not early:
        return ()
    return (
        f"Looks at {listing(early)} rows are left out: an arm has no two different outcomes by then. "
        "Look later.",
    )


def look_table(found: dict[int, ABResult], threshold: float) -> pd.DataFrame:
    """Return one line for each look, by quantity and arm, and whether the rule stops there."""
    lines = {}
    for number, result in found.items():
        uplift = result.lift[[name for name in UPLIFT if name in result.lift]].unstack()
        lines[number] = pd.concat([uplift, result.arms[["expected_loss"]].unstack()])
    table = pd.DataFrame(lines).T.rename_axis("rows").rename_axis(["quantity", "arm"], axis=1)
    table["stop", ""] = stops(table, threshold)
    return table


def stops(table: pd.DataFrame, threshold: float) -> NDArray[np.bool_]:
    """Return at which looks the rule stops `(L,)`."""
    better = table["p_better"].to_numpy(float)
    return np.any(np.maximum(better, 1 - better) > threshold, axis=1)


def first_stop(table: pd.DataFrame, threshold: float) -> int | None:
    """Return the rows at the first look where the rule stops, or None."""
    return next((int(number) for number in table.index[stops(table, threshold)]), None)
