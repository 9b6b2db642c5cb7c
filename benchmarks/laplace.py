"""Importance sampling from Laplace's approximation beside HMC: the survey's normal, 263 rows.

Run as `python -m benchmarks.laplace`.  With 4 columns the weights can be trusted and the means equal
HMC's; with 12 (90 dimensions) they cannot, and the fit says so.  Every run is appended to
`benchmarks/results/laplace.jsonl`.
"""

import time
import warnings
from typing import Any

import pandas as pd
import torch

import pyrolatent as pyl
from benchmarks.mvn import QUANTITIES, ROWS
from benchmarks.record import append
from pyrolatent.diagnostics import mcse_mean
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.method import Method

COLUMNS = (4, 12)
SEEDS = 3


def fitted(frame: pd.DataFrame, method: Method, seed: int) -> tuple[pyl.Fit, float]:
    """Return a fit and the seconds it took."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)  # they are in the fit, and recorded
        fit = pyl.fit(pyl.models.BayesianMVN(pyl.infer_schema(frame)), frame, method, seed=seed)
    return fit, time.perf_counter() - start


def difference(weighted: pyl.Fit, sampled: pyl.Fit) -> float:
    """Return the largest difference of posterior means, in combined Monte Carlo standard errors.

    The mean of the M draws kept has the error of the weighted mean, and that of keeping M of them.
    """
    worst = 0.0
    for name in QUANTITIES:
        ours, theirs = weighted.samples[name], sampled.samples[name]
        error = ours.std((0, 1)) * (1 / weighted.info["ess"] + 1 / weighted.num_draws) ** 0.5
        apart = (ours.mean((0, 1)) - theirs.mean((0, 1))).abs() / torch.hypot(error, mcse_mean(theirs))
        worst = max(worst, float(apart[apart.isfinite()].max()))  # a correlation with itself is constant
    return worst


def holds(row: dict[str, Any]) -> bool:
    """Whether 4 columns are as good as HMC, and more are not taken for it."""
    if row["columns"] > 4:
        return bool(row["warnings"])
    return row["pareto_k"] < 0.5 and row["ess"] >= 2_000 and row["mcse"] < 4


def measure(num_columns: int, seed: int) -> dict[str, Any]:
    """Fit one sample of the survey both ways."""
    frame = pyl.datasets.job_satisfaction(ROWS, seed=seed).iloc[:, :num_columns]
    weighted, seconds = fitted(frame, ImportanceSampling(), seed)
    sampled, hmc_seconds = fitted(frame, pyl.HMC(), seed)
    assert weighted.weights is not None
    return {
        "columns": num_columns,
        "seed": seed,
        "pareto_k": weighted.weights.pareto_k,
        "ess": weighted.info["ess"],
        "kept": weighted.num_draws,
        "log_evidence": weighted.info["log_evidence"],
        "log_evidence_error": weighted.info["log_evidence_error"],
        "mcse": difference(weighted, sampled),
        "warnings": weighted.warnings,
        "seconds": seconds,
        "hmc_seconds": hmc_seconds,
        "hmc_warnings": sampled.warnings,
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = [measure(num_columns, seed) for num_columns in COLUMNS for seed in range(SEEDS)]
    for row in rows:
        print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
    print(f"appended to {append('laplace', [row | {'holds': holds(row)} for row in rows])}")
    if not all(holds(row) for row in rows):
        raise SystemExit("a bar is missed")


if __name__ == "__main__":
    main()
