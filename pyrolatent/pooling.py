"""One inference from several completed tables, by Rubin's rules.

The same analysis is made of each of m completed tables.  With Q the estimates and U their squared
standard errors, the pooled estimate is the mean of Q, and its variance is the mean of U, what
sampling leaves unknown within a table, and the variance B of Q, what the missing cells leave
unknown between tables, the latter times 1 + 1/m since m is finite (Rubin 1987, "Multiple Imputation
for Nonresponse in Surveys", section 3.1).  The reference distribution is Student's t with the
degrees of freedom of Barnard and Rubin (1999, "Small-sample degrees of freedom with multiple
imputation", Biometrika 86), which never exceed those of the analysis of a complete table.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pyrolatent.errors import ArgumentError

PROBABILITY = 0.95  # of the intervals

Array = NDArray[np.float64]
Estimate = Callable[[pd.DataFrame], tuple[Any, Any]]


def pool(
    values: "ArrayLike | pd.DataFrame", variances: "ArrayLike | pd.DataFrame", df_complete: float = math.inf
) -> pd.DataFrame:
    """Pool estimates of several completed tables by Rubin's rules.

    Args:
        values: The estimates of k quantities from each of m tables `(m, k)`, or `(m,)` of a single one.
            The columns of a DataFrame name the quantities.
        variances: Their squared standard errors, of the same shape.
        df_complete: Degrees of freedom that the analysis of a complete table has: N - 1 for a mean,
            N - p for a regression with p coefficients.

    Returns:
        A row for each quantity: `estimate`, `std_error`, `df`, `statistic` and `p_value` of a t test
        against 0, the ends `lower` and `upper` of the 95 % interval, the variances `within` and
        `between` tables and in `total`, the relative increase in variance `riv`, the share of the
        variance due to missing cells `lambda`, and the fraction of missing information `fmi`.

    Raises:
        ArgumentError: There are fewer than two tables, the shapes differ, a number is not finite, a
            variance is negative or 0 in every table, or `df_complete` is not positive.
    """
    names = values.columns if isinstance(values, pd.DataFrame) else None
    estimates, squares = as_tables(values), as_tables(variances)
    check(estimates, squares, df_complete)
    return pd.DataFrame(rubin(estimates, squares, df_complete), index=names)


def rubin(values: Array, variances: Array, df_complete: float) -> dict[str, Array]:
    """Return what `pool` does, `(k,)` each, from `values (m, k)` and `variances (m, k)`.

    Rubin (1987), equations 3.1.2 to 3.1.10; Barnard and Rubin (1999), equations 3 to 5.
    """
    from scipy.stats import t as student

    m = len(values)
    estimate, within, between = values.mean(0), variances.mean(0), values.var(0, ddof=1)
    total = within + (1 + 1 / m) * between
    due_to_missing = (1 + 1 / m) * between / total
    # The reciprocals, so that nothing missing and an infinite table are no special cases.
    inverse_of_old = due_to_missing**2 / (m - 1)
    inverse_of_observed = (1 + 2 / (df_complete + 1)) / df_complete / (1 - due_to_missing)
    with np.errstate(divide="ignore"):
        df = 1 / (inverse_of_old + inverse_of_observed)
    std_error = np.sqrt(total)
    reach = student.ppf((1 + PROBABILITY) / 2, df) * std_error
    return {
        "estimate": estimate,
        "std_error": std_error,
        "df": df,
        "statistic": estimate / std_error,
        "p_value": 2 * student.sf(np.abs(estimate / std_error), df),
        "lower": estimate - reach,
        "upper": estimate + reach,
        "within": within,
        "between": between,
        "total": total,
        "riv": (1 + 1 / m) * between / within,
        "lambda": due_to_missing,
        "fmi": due_to_missing + (1 - due_to_missing) * 2 / (df + 3),
    }


def analysed(frames: Iterable[pd.DataFrame], estimate: Estimate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return estimates and variances, a row for each of the tables, in columns named by quantity.

    Raises:
        ArgumentError: `estimate` does not return a pair of the same shape and names for each table.
    """
    pairs = [named(estimate(frame), number) for number, frame in enumerate(frames)]
    names = [values.index for values, _ in pairs]
    other = next((number for number, index in enumerate(names) if not index.equals(names[0])), None)
    if other is not None:
        raise ArgumentError(
            "estimate names other quantities from one table to the next",
            where=f"completed table {other}",
            why=f"{list(names[other])} where table 0 has {list(names[0])}",
            remedy="return the same quantities in the same order for every table",
        )
    values, variances = (pd.DataFrame([pair[part] for pair in pairs]) for part in (0, 1))
    return values.reset_index(drop=True), variances.reset_index(drop=True)


def named(result: Any, number: int) -> tuple[pd.Series, pd.Series]:
    """Return what an analysis said of table `number` as two series named by quantity."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ArgumentError(
            "estimate must return (values, variances)",
            where=f"completed table {number}",
            why=f"got {type(result).__name__}",
            remedy="return two numbers, arrays, dictionaries or series",
        )
    values, variances = (as_series(part) for part in result)
    if isinstance(result[1], Mapping | pd.Series) and set(values.index) == set(variances.index):
        variances = variances[values.index]
    if len(values) != len(variances):
        raise ArgumentError(
            "estimate returns another number of variances than of values",
            where=f"completed table {number}",
            why=f"{len(values)} values, {len(variances)} variances",
            remedy="return one variance a value: the diagonal of a covariance matrix",
        )
    return values, variances.set_axis(values.index)


def as_series(part: Any) -> pd.Series:
    """Return a number, an array `(k,)`, a dictionary or a series as a series of numbers."""
    if isinstance(part, Mapping | pd.Series):
        return pd.Series(part, dtype=np.float64)
    return pd.Series(np.asarray(part, dtype=np.float64).reshape(-1))


def as_tables(numbers: "ArrayLike | pd.DataFrame") -> Array:
    """Return numbers of one or several quantities `(m, k)`."""
    array = np.asarray(numbers, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def check(values: Array, variances: Array, df_complete: float) -> None:
    """Refuse what cannot be pooled.

    Raises:
        ArgumentError: As `pool` says.
    """
    if values.ndim != 2 or values.shape != variances.shape:
        why = f"got {values.shape} and {variances.shape}"
        raise ArgumentError("values and variances must both have the shape (tables, quantities)", why=why)
    if len(values) < 2:
        raise ArgumentError(
            "pooling takes at least two completed tables",
            why=f"got {len(values)}",
            remedy="impute with num_draws=20, from a fit with at least as many draws",
        )
    for what, numbers in (("an estimate", values), ("a variance", variances)):
        if not np.isfinite(numbers).all():
            table, quantity = np.argwhere(~np.isfinite(numbers))[0]
            where = f"completed table {table}, quantity {quantity}"
            raise ArgumentError(f"{what} is not finite", where=where, why=f"got {numbers[table, quantity]}")
    if (variances < 0).any() or not variances.any(axis=0).all():
        quantity = int(np.argmax((variances < 0).any(axis=0) | ~variances.any(axis=0)))
        raise ArgumentError(
            "variances must not be negative, nor 0 in every table",
            where=f"quantity {quantity}",
            why=f"got {variances[:, quantity].min():g} to {variances[:, quantity].max():g}",
            remedy="return squared standard errors: s^2 / N for a mean",
        )
    if not df_complete > 0:
        raise ArgumentError("df_complete must be positive", why=f"got {df_complete}")
