"""The demonstration: hide cells of a table whose truth is known, fit, complete, and compare."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.ampute import ampute
from pyrolatent.cells import cell_table, coverage
from pyrolatent.datasets import job_satisfaction, job_satisfaction_correlation
from pyrolatent.fit import fit
from pyrolatent.folders import prepare_folder
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.result import Fit
from pyrolatent.runs import write_completed, write_run
from pyrolatent.schema import infer_schema

NUM_ROWS, FRACTION = 263, 0.1


@final
@dataclass(frozen=True)
class Comparison:
    """The fit beside the truth.

    Attributes:
        residual: Mean absolute difference between posterior mean and true correlations.
        plain_residual: The same for correlations of the rows that have both cells.
        num_hidden: Hidden cells.
        coverage: The share of them whose 90 % interval holds the true value.
    """

    fit: Fit
    residual: float
    plain_residual: float
    num_hidden: int
    coverage: float


def demo(out: str | os.PathLike[str], *, seed: int = 0, force: bool = False) -> Comparison:
    """Draw 263 rows of the job-satisfaction survey, hide 10 % of the cells, fit, complete, compare.

    Args:
        out: The folder for the fit, `posterior.nc`, `summary.csv`, `report.html`, `cells.csv` and 20
            completed tables.
        seed: Seed of the rows, of what is hidden and of the fit.
        force: Whether to replace an earlier run.

    Raises:
        StoreError: The folder holds files, or cannot be written.
    """
    prepare_folder(out, force)
    full = job_satisfaction(NUM_ROWS, seed)
    holes = ampute(full, fraction=FRACTION, seed=seed)
    result = fit(BayesianMVN(infer_schema(holes)), holes, seed=seed)
    completed = write_run(result, out, force=force, truth=full)
    write_completed(completed, Path(out))
    return compare(result, holes, cell_table(completed, truth=full))


def compare(result: Fit, holes: pd.DataFrame, cells: pd.DataFrame) -> Comparison:
    """Set the fit beside the matrix that the rows were drawn from and the cells that were hidden."""
    true = job_satisfaction_correlation().to_numpy()
    mean = result.samples["correlation"].mean((0, 1)).numpy()
    plain = holes.corr().to_numpy()
    return Comparison(result, residual(mean, true), residual(plain, true), len(cells), coverage(cells))


def residual(matrix: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the mean absolute difference off the diagonal."""
    above = np.triu_indices(len(true), k=1)
    return float(np.abs(matrix - true)[above].mean())
