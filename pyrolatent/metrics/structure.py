"""Do generated rows look like those of a table, column by column and pair by pair?"""

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd

from pyrolatent.errors import DataError
from pyrolatent.seeds import numpy_generator


class Residuals(NamedTuple):
    """Correlations of one table minus those of another, and their standard errors, `(D, D)` each."""

    difference: pd.DataFrame
    sd: pd.DataFrame


def ks_complement(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    """Return 1 - the Kolmogorov-Smirnov distance of each numeric column of both tables: 1 where they agree.

    Missing cells are left out.  Known as KSComplement, before that KSTest, from the Synthetic Data Vault.

    Raises:
        DataError: The tables have no numeric column in common.
    """
    names = numeric_columns(first, second, 1)
    found = [agreement(first[name].dropna(), second[name].dropna()) for name in names]
    return pd.Series(found, names, name="ks_complement")


def agreement(first: pd.Series, second: pd.Series) -> float:
    """Return 1 - the Kolmogorov-Smirnov distance of two samples of numbers without holes."""
    from scipy.stats import ks_2samp  # slow to import

    return float(1 - ks_2samp(first.to_numpy(float), second.to_numpy(float), method="asymp").statistic)


def marginal_recovery(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return how well each column of a table agrees with that of another, by itself; missing cells left out.

    Args:
        first: `(N, D)`, generated rows, say.
        second: `(M, D)`, those to compare them with.

    Returns:
        A line for each column of both tables, dates left out.  Of columns that are numbers in both:
        `ks_complement`, 1 - the Kolmogorov-Smirnov distance; `mean_difference`, `first` minus `second` in
        standard deviations of `second`; `sd_ratio`, `first` over `second`.  Of all others, truth values
        and text among them: `tv_complement`, 1 - the total variation distance of the shares of labels
        (TVComplement of the Synthetic Data Vault).  NaN where a figure has no meaning.

    Raises:
        DataError: The tables have no column in common, or one of these has no observed cell.
    """
    names = [name for name in untimed(first) if name in untimed(second)]
    if not names:
        raise DataError("the tables have no column in common", why=f"{list(first)} and {list(second)}")
    if empty := [name for name in names if first[name].isna().all() or second[name].isna().all()]:
        raise DataError("a column has no observed cell", where=f"columns {empty}", remedy="drop it")
    numeric = numeric_columns(first[names], second[names], 0)
    found = {
        name: (of_numbers if name in numeric else of_labels)(first[name].dropna(), second[name].dropna())
        for name in names
    }
    figures = ["ks_complement", "mean_difference", "sd_ratio", "tv_complement"]
    return pd.DataFrame([pd.Series(line, figures, dtype=float) for line in found.values()], names)


def untimed(frame: pd.DataFrame) -> list[Hashable]:
    """Return the names of columns that hold neither dates nor durations."""
    return list(frame.select_dtypes(exclude=["datetime", "datetimetz", "timedelta"]))


def of_numbers(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Return how well two samples of numbers agree: in shape, in their means and in their scales."""
    one, other = first.to_numpy(float), second.to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a column that is constant in `second`
        difference, ratio = (one.mean() - other.mean()) / other.std(), one.std() / other.std()
    return {"ks_complement": agreement(first, second), "mean_difference": difference, "sd_ratio": ratio}


def of_labels(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Return how well the shares of labels agree."""
    shares = [labels.astype(object).value_counts(normalize=True) for labels in (first, second)]
    return {"tv_complement": 1 - shares[0].sub(shares[1], fill_value=0).abs().sum() / 2}


def correlation_residuals(
    first: pd.DataFrame, second: pd.DataFrame, num_bootstrap: int = 200, seed: int = 0
) -> Residuals:
    """Return the correlations of `first` minus those of `second`, with bootstrap standard errors.

    Correlations are pairwise where cells are missing.

    Args:
        first: `(N, D)`; columns that are no numbers are left out.
        second: `(M, D)`, with the same columns.
        num_bootstrap: Pairs of tables whose rows are drawn anew.
        seed: Of these.

    Raises:
        DataError: The tables have fewer than two numeric columns in common.
    """
    names = numeric_columns(first, second, 2)
    random, tables = numpy_generator(seed, "correlation residuals"), (first[names], second[names])
    drawn = []
    for _ in range(num_bootstrap):
        again = [table.iloc[random.integers(len(table), size=len(table))].corr() for table in tables]
        drawn.append((again[0] - again[1]).to_numpy())
    sd = pd.DataFrame(np.std(drawn, 0, ddof=1), names, names)
    return Residuals(tables[0].corr() - tables[1].corr(), sd)


def numeric_columns(first: pd.DataFrame, second: pd.DataFrame, least: int) -> list[Hashable]:
    """Return the names of numeric columns of both tables.

    Raises:
        DataError: There are fewer than `least`.
    """
    names = [name for name in first.select_dtypes("number") if name in second.select_dtypes("number")]
    if len(names) < least:
        why = f"{names} are numeric in both"
        raise DataError("the tables have too few numeric columns in common", why=why)
    return names
