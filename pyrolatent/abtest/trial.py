"""The rows of a test: its table, its labels, and what is wrong with them before any model is fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.models.abtest import KINDS, ABTest, Family, Priors, column_of
from pyrolatent.schema import check_names, infer_schema, listing

MOST_ARMS = 20
MISMATCH = 1e-3  # probability of shares as uneven, below which labels are suspect
CONTROLS = ("control", "a", "0", "0.0", "false", "baseline")  # what controls are called


@final
@dataclass(frozen=True)
class Trial:
    """The rows of a test.

    Attributes:
        table: Outcome, labels and covariates, those that count.
        outcome: The column of the outcome.
        group: The column of the labels; None if no label is known.
        names: Of the arms.
        pair: Their model.
    """

    table: pd.DataFrame
    outcome: str
    group: str | None
    names: list[Any]
    pair: ABTest

    @property
    def counts(self) -> list[int]:
        """How many rows have the label of each arm."""
        found = {} if self.group is None else self.table[self.group].value_counts().to_dict()
        return [int(found.get(name, 0)) for name in self.names]

    @property
    def outcomes(self) -> dict[Any, Any]:
        """Label -> the outcomes of its rows, as an array."""
        if self.group is None:
            return {}
        rows = self.table[[self.outcome, self.group]].dropna()
        numbers = column_of(self.pair.columns, self.outcome).values(rows[self.outcome])
        return {name: numbers[(rows[self.group] == name).to_numpy()] for name in self.names}

    @property
    def num_silent(self) -> int:
        """Rows that have neither outcome nor label."""
        known = [self.outcome, *([] if self.group is None else [self.group])]
        return int(self.table[known].isna().all(axis=1).sum())

    @property
    def look_alikes(self) -> list[Any]:
        """Labels that differ from another one by spaces and capitals alone."""
        read = [str(name).strip().lower() for name in self.names]
        return [name for name, text in zip(self.names, read, strict=True) if read.count(text) > 1]

    def control(self, name: Any) -> Any:
        """Return the arm that others are compared with.

        Raises:
            ArgumentError: There is no such arm.
        """
        if name is None:
            return self.names[likely_control(self.names)]
        if name not in self.names:
            raise ArgumentError(f"there is no arm {name!r}", why=f"the arms are {listing(self.names)}")
        return name

    def welch(self, control: Any) -> pd.DataFrame:
        """Return Welch's t test of each other arm against the control: t, degrees of freedom, p."""
        from scipy.stats import t as student  # slow to import

        means = {
            name: (part.mean(), part.var(ddof=1) / len(part), len(part) - 1)
            for name, part in self.outcomes.items()
        }
        base, error, rest = means.pop(control)
        lines = {}
        for name, (mean, own, others) in means.items():
            squares = own**2 / others + error**2 / rest
            with np.errstate(divide="ignore", invalid="ignore"):  # where all outcomes of both arms are equal
                t, df = (mean - base) / np.sqrt(own + error), (own + error) ** 2 / squares
            lines[name] = {"t": t, "df": df, "p": 2 * student.sf(abs(t), df)}
        return pd.DataFrame.from_dict(lines, orient="index")

    def mismatch(self, shares: Mapping[Any, float] | None) -> float:
        """Return the probability that labels are as far from the planned shares as these are."""
        from scipy.stats import chisquare

        planned = pd.Series([1.0 if shares is None else shares.get(name, 0.0) for name in self.names])
        return float(chisquare(self.counts, planned / planned.sum() * sum(self.counts)).pvalue)


def likely_control(names: Sequence[Any]) -> int:
    """Return the position of the arm that is called as controls are, else of the first."""
    return next((k for k, name in enumerate(names) if str(name).lower() in CONTROLS), 0)


def as_trial(
    frame: pd.DataFrame,
    outcome: str,
    group: str | None,
    covariates: Sequence[str],
    family: Family,
    num_arms: int,
    priors: Priors,
) -> Trial:
    """Return the rows of a test with their model.

    Raises:
        DataError: A column cannot be used, or labels are no arms.
    """
    check_named(frame, [outcome, *([] if group is None else [group]), *covariates])
    labelled = group if group is not None and frame[group].notna().any() else None
    table = frame[[outcome, *([] if labelled is None else [labelled]), *covariates]]
    kinds: dict[str | int, str] = {outcome: KINDS[family]} if family in KINDS else {}
    if labelled is None:
        pair = ABTest(infer_schema(table, kinds=kinds), outcome, num_arms, family, tuple(covariates), priors)
        return Trial(table, outcome, None, pair.arm_names, pair)
    check_arms(table, outcome, labelled)
    schema = infer_schema(table, kinds={**kinds, labelled: "categorical"})
    pair = ABTest(schema, outcome, labelled, family, tuple(covariates), priors)
    return Trial(table, outcome, labelled, pair.arm_names, pair)


def check_named(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse columns that are not there, or that are named twice.

    Raises:
        DataError: The table lacks a column, or has it twice.
        ArgumentError: Outcome, labels and covariates are not different columns.
    """
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
    ordered = isinstance(known.dtype, pd.CategoricalDtype)
    levels = list(known.cat.categories) if ordered else list(known.unique())
    if len(levels) > MOST_ARMS:
        raise DataError(
            f"{len(levels)} different labels are no arms of a test", where=where, why=listing(levels, 5),
            remedy="name the column that says who was treated how",
        )  # fmt: skip
    if len(levels) < 2:
        remedy = "pass rows of both arms"
        raise DataError("all labels are the same", where=where, why=listing(levels), remedy=remedy)
    outcomes = table[outcome].notna().groupby(table[group], observed=False).sum().to_dict()
    few = {level: int(outcomes.get(level, 0)) for level in levels if outcomes.get(level, 0) < 2}
    if few:
        raise DataError(
            "an arm has fewer than two outcomes", where=where,
            why=", ".join(f"{level!r}: {number}" for level, number in few.items()),
            remedy="correct the labels, or leave these rows out",
        )  # fmt: skip
