"""What is wrong with the rows of a test before any model is fitted: its names, labels, spreads and shares."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from pyrolatent.abtest.numeric import success
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.models.abtest import Family
from pyrolatent.schema import check_names, listing

MOST_ARMS = 20
SPREADING = ("normal", "student", "lognormal", "revenue")  # families with a spread for each arm
OF_LOGS = ("lognormal", "revenue")
EQUAL = 1e-9  # of the standard deviation of all outcomes: a range that is rounding
ROUNDED = 0.005  # by how much a share of two digits may be off


def check_named(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse columns that are not there, or that are named twice.

    Raises:
        DataError: `frame` is no DataFrame, lacks a column, or has it twice.
        ArgumentError: Names are no text, or outcome, labels and covariates are not different columns.
    """
    if not isinstance(frame, pd.DataFrame):
        what, why = "the table of a test is a pandas.DataFrame", f"got {type(frame).__name__}"
        raise DataError(what, why=why, remedy="pass pandas.DataFrame(frame)")
    if other := [name for name in names if not isinstance(name, str)]:
        what, remedy = (
            "columns of a test are named by text",
            "pass frame.rename(columns=str), and text as names",
        )
        raise ArgumentError(what, why=f"got {listing(other)}", remedy=remedy)
    check_names(frame)
    if absent := [name for name in names if name not in frame.columns]:
        why = f"it has {listing(frame.columns.tolist())}"
        raise DataError("the table lacks columns of the test", where=listing(absent), why=why)
    if twice := [name for name in names if names.count(name) > 1]:
        remedy = "name different columns for outcome, labels and covariates"
        raise ArgumentError("a column has two parts in the test", where=f"column {twice[0]!r}", remedy=remedy)


def check_arms(table: pd.DataFrame, outcome: str, group: str) -> None:
    """Refuse labels that are no arms.

    Raises:
        DataError: There are many, one alone, or one with fewer than two outcomes.
    """
    known, where = table[group].dropna(), f"column {group!r}"
    declared = isinstance(known.dtype, pd.CategoricalDtype)
    levels = list(known.cat.categories) if declared else list(known.unique())
    present, name = set(known.unique()), f"frame[{group!r}]"
    if absent := [level for level in levels if level not in present]:
        raise DataError(
            "an arm has no rows", where=where, why=f"{listing(absent)} of its categories {listing(levels)}",
            remedy=f"make {name} = {name}.cat.remove_unused_categories() if it is none of this test",
        )  # fmt: skip
    if len(levels) > MOST_ARMS:
        raise DataError(
            f"{len(levels)} different labels are no arms of a test", where=where, why=listing(levels, 5),
            remedy="name the column that says who was treated how",
        )  # fmt: skip
    if len(levels) < 2:
        remedy = "pass rows of both arms"
        raise DataError("all labels are the same", where=where, why=listing(levels), remedy=remedy)
    outcomes = table[outcome].notna().groupby(table[group], observed=True).sum().to_dict()
    if few := {level: int(outcomes[level]) for level in levels if outcomes[level] < 2}:
        raise DataError(
            "an arm has fewer than two outcomes", where=where,
            why=", ".join(f"{level!r}: {number}" for level, number in few.items()),
            remedy="correct the labels, or leave these rows out",
        )  # fmt: skip


def ranges(outcomes: pd.Series, labels: pd.Series, family: Family) -> pd.Series:
    """Return by arm its highest outcome less its lowest, 0 where they are equal up to rounding.

    Of amounts it is that of their logs, those of 0 left out: that is what their spread is learnt from.
    """
    values = np.log(outcomes.where(outcomes > 0)) if family in OF_LOGS else outcomes
    by_arm = values.groupby(labels, observed=True)
    found = by_arm.max() - by_arm.min()
    return found.where(found > EQUAL * values.std(), 0.0)


def check_spreads(table: pd.DataFrame, outcome: str, group: str, family: Family) -> None:
    """Refuse an arm whose outcomes do not tell its spread.

    Raises:
        DataError: They are equal, or fewer than two are positive where spread is that of amounts.
    """
    found = ranges(table[outcome], table[group], family)
    flat = found.index[found == 0].tolist() if family in SPREADING else []
    if not flat:
        return
    arm, where = flat[0], f"column {outcome!r}"
    known = table.loc[table[group] == arm, outcome].dropna()
    known = known[known > 0] if family == "revenue" else known
    which = "positive outcomes" if family == "revenue" else "outcomes"
    if len(known) < 2:
        raise DataError(
            "an arm has fewer than two positive outcomes", where=where, why=f"{arm!r}: {len(known)}",
            remedy=f'test whether there is any by family "bernoulli", with {success(table[outcome], "> 0")}',
        )  # fmt: skip
    raise DataError(
        f"all {which} of an arm are equal, so their spread cannot be told", where=where,
        why=f"the {len(known)} of {arm!r} are {float(known.iloc[0]):g}",
        remedy="correct them, or leave this arm out",
    )  # fmt: skip


def check_shares(shares: Mapping[Any, float] | None, names: Sequence[Any], known: bool) -> None:
    """Refuse planned shares that are not those of the arms.

    Args:
        shares: Arm -> its share.
        names: Of the arms.
        known: Whether there are labels.

    Raises:
        ArgumentError: They are of other arms, not positive, or do not sum to 1; or no label is known.
    """
    if shares is None:
        return
    arms = f"the arms are {listing(names)}"
    if not known:
        raise ArgumentError("no label is known, so shares= has no meaning", remedy="leave it out")
    if not isinstance(shares, Mapping) or set(shares) != set(names):
        remedy = "pass a dictionary with the share of each arm"
        raise ArgumentError("shares are not those of the arms", why=f"got {shares!r}; {arms}", remedy=remedy)
    bad = [
        n for n, v in shares.items() if isinstance(v, bool) or not isinstance(v, Real) or not 0 < v < math.inf
    ]
    if bad or abs(sum(shares.values()) - 1) > ROUNDED * len(names):
        remedy = "pass positive numbers that sum to 1"
        raise ArgumentError("shares are no shares", why=f"got {dict(shares)!r}; {arms}", remedy=remedy)
