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
    from scipy.stats import ks_2samp  # slow to import

    names = numeric_columns(first, second, 1)
    found = [1 - ks_2samp(first[name].dropna(), second[name].dropna()).statistic for name in names]
    return pd.Series(found, names, name="ks_complement")


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
