"""Covariates and arms: whether a covariate differs between arms, or is the arm or the outcome itself."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import DataError

SAME = 0.9999  # correlation with the outcome above which a covariate is the outcome
FEW = 3  # rows more than arms, below which a correlation may be as high by chance

Array = NDArray[np.float64]


def balance(table: pd.DataFrame, covariate: str, group: str) -> float:
    """Return the p value of the one-way analysis of variance of a covariate, by arm, over labelled rows.

    It is nan where too few are known, or where they are all equal.
    """
    from scipy.stats import f_oneway  # slow to import

    parts = by_arm(table, covariate, group)
    if len(parts) < 2 or not any(np.ptp(part) > 0 for part in parts):
        return float("nan")
    return float(f_oneway(*parts).pvalue)


def check_covariate(table: pd.DataFrame, covariate: str, outcome: str, group: str | None) -> None:
    """Refuse a covariate that is the arm or the outcome in other words.

    Raises:
        DataError: It does not vary within arms, or its correlation with the outcome is 1 there.
    """
    where, remedy = f"column {covariate!r}", "leave it out of covariates="
    if group is not None and tells_arm(by_arm(table, covariate, group)):
        why = "it does not vary within arms, so its effect cannot be told from theirs"
        raise DataError("the covariate tells the arm exactly", where=where, why=why, remedy=remedy)
    if abs(found := correlation(table, covariate, outcome, group)) > SAME:
        why = f"its correlation with {outcome!r} is {found:.6g}, which leaves nothing to the arms"
        raise DataError("the covariate is the outcome in other words", where=where, why=why, remedy=remedy)


def by_arm(table: pd.DataFrame, covariate: str, group: str) -> list[Array]:
    """Return the known cells of a covariate in each arm that has some."""
    return [part.to_numpy() for _, part in table[covariate].dropna().groupby(table[group], observed=True)]


def tells_arm(parts: list[Array]) -> bool:
    """Return whether cells differ between arms, and never within one."""
    if len(parts) < 2 or any(np.ptp(part) > 0 for part in parts):
        return False
    every = np.concatenate(parts)
    return bool(len(every) > len(parts) and np.ptp(every) > 0)


def correlation(table: pd.DataFrame, covariate: str, outcome: str, group: str | None) -> float:
    """Return the correlation of covariate and outcome within arms; 0 where few rows tell it."""
    rows = table[[covariate, outcome, *([] if group is None else [group])]].dropna()
    labels = np.zeros(len(rows), int) if group is None else pd.factorize(rows[group])[0]
    pair = rows[[covariate, outcome]]
    x, y = (pair - pair.groupby(labels).transform("mean")).to_numpy().T
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 and len(rows) >= len(np.unique(labels)) + FEW else 0.0
