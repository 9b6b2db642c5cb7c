"""A survey that comes with the package: its rows are drawn, from published moments."""

from importlib import resources

import numpy as np
import pandas as pd

from pyrolatent.errors import ArgumentError
from pyrolatent.seeds import numpy_generator


def job_satisfaction(n: int, seed: int = 0) -> pd.DataFrame:
    """Draw answers to the job-satisfaction survey, 12 real columns with mean 0.

    Rows are independent draws from N(0, outer(sd, sd) * correlation), with the standard deviations
    and correlations of the essay "Heuristics in Latent Space: VAEs and Bayesian Inference"
    (N. Forde, 2025).

    Args:
        n: Number of rows N, at least 1 (the survey had 263).
        seed: Seed of the draw.

    Returns:
        The rows (N, 12).

    Raises:
        ArgumentError: If `n` is less than 1.
    """
    if n < 1:
        raise ArgumentError("n must be at least 1", why=f"got {n!r}")
    table = _job_satisfaction_table()
    sd = table["std"].to_numpy()
    covariance = np.outer(sd, sd) * table[table.index].to_numpy()
    random = numpy_generator(seed, "job_satisfaction")
    rows = random.multivariate_normal(np.zeros(len(sd)), covariance, size=n, method="cholesky")
    return pd.DataFrame(rows, columns=table.index.tolist())


def job_satisfaction_correlation() -> pd.DataFrame:
    """Return the correlations (12, 12) that `job_satisfaction` draws from, rows and columns named.

    Source: the essay "Heuristics in Latent Space: VAEs and Bayesian Inference" (N. Forde, 2025).
    """
    table = _job_satisfaction_table()
    return table[table.index]


def _job_satisfaction_table() -> pd.DataFrame:
    with (resources.files("pyrolatent") / "data" / "job_satisfaction.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col="variable")
