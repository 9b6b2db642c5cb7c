"""The rows of a test: its table, its labels, its model, and what can be said of them without a fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd

from pyrolatent.abtest.balance import balance, check_covariate
from pyrolatent.abtest.checks import check_arms, check_named, check_spreads
from pyrolatent.abtest.numeric import covariate_numbers, outcome_numbers
from pyrolatent.errors import ArgumentError
from pyrolatent.infer.method import check_least
from pyrolatent.models.abtest import KINDS, ABTest, Family, Priors, check_family
from pyrolatent.schema import infer_schema, listing

MISMATCH = 1e-3  # probability of shares, or covariates, as uneven, below which labels are suspect
CONTROLS = ("a", "0", "0.0", "false", "baseline")  # what controls are called that are not called control


@final
@dataclass(frozen=True)
class Trial:
    """The rows of a test.

    Attributes:
        table: Outcome, labels and covariates, those that count; numbers as float64, yes and no as 1 and 0.
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
        return {name: rows.loc[rows[self.group] == name, self.outcome].to_numpy() for name in self.names}

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

    @property
    def imbalances(self) -> dict[str, float]:
        """Covariate that differs between arms -> the probability that it does so by chance."""
        if self.group is None:
            return {}
        names = self.pair.covariates
        found = {name: balance(self.table, name, self.group) for name in names}
        return {name: p for name, p in found.items() if p < MISMATCH / len(names)}

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
        """Return the probability that labels are as far from the planned shares as these are.

        Args:
            shares: The planned share of each arm (`check_shares`); equal ones by default.
        """
        from scipy.stats import chisquare

        planned = pd.Series([1.0 if shares is None else shares[name] for name in self.names])
        return float(chisquare(self.counts, planned / planned.sum() * sum(self.counts)).pvalue)


def likely_control(names: Sequence[Any]) -> int:
    """Return the position of the arm that is called as controls are, else of the first."""
    read = [str(name).strip().lower() for name in names]
    control = [k for k, name in enumerate(read) if name.startswith("control")]
    other = [k for k, name in enumerate(read) if name in CONTROLS]
    return [*control, *other, 0][0]


def as_trial(
    frame: pd.DataFrame,
    outcome: str,
    group: str | None,
    covariates: str | Sequence[str],
    family: Family,
    num_arms: int,
    priors: Priors,
) -> Trial:
    """Return the rows of a test with their model.

    Raises:
        DataError: A column cannot be used, labels are no arms, or an arm does not tell its spread.
        ArgumentError: A name or a setting has no meaning.
    """
    covariates = (covariates,) if isinstance(covariates, str) else tuple(covariates)
    check_named(frame, [outcome, *([] if group is None else [group]), *covariates])
    check_family(family)
    check_least("num_arms", num_arms, 2)
    labelled = group if group is not None and frame[group].notna().any() else None
    table = frame[[outcome, *([] if labelled is None else [labelled]), *covariates]].copy()
    table[outcome] = outcome_numbers(table[outcome], family)
    for name in covariates:
        table[name] = covariate_numbers(table[name])
    kinds: dict[str | int, str] = {outcome: KINDS[family], **dict.fromkeys(covariates, "real")}
    if labelled is not None:
        check_arms(table, outcome, labelled)
        check_spreads(table, outcome, labelled, family)
        kinds[labelled] = "categorical"
    for name in covariates:
        check_covariate(table, name, outcome, labelled)
    arms = num_arms if labelled is None else labelled
    pair = ABTest(infer_schema(table, kinds=kinds), outcome, arms, family, covariates, priors)
    return Trial(table, outcome, labelled, pair.arm_names, pair)
