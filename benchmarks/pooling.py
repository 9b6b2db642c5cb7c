"""Do 95 % intervals pooled over completed tables cover the truth in 95 % of tables?

500 tables of 150 rows from one normal distribution of three columns.  `x` is always there; `y` and
`z` are missing at random given `x`, each with probability sigmoid(x - 0.8), about a third of the
cells.  A `BayesianMVN` is fitted by HMC, 20 tables are completed, and two estimates pooled: the mean
of `y`, and the slope on `z` of the regression of `y` on `x` and `z`.  The same intervals from the
full table, and from the rows observed, stand beside them.

Run as `python -m benchmarks.pooling`.  Every finished table is appended to
`benchmarks/results/pooling.jsonl`; a further run goes on where the last one ended.
"""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

import pyrolatent as pyl
from benchmarks.record import RESULTS, append

TABLES, ROWS, COMPLETED = 500, 150, 20
METHOD = pyl.HMC(num_chains=16, num_warmup=100, num_draws=100)
MEAN = np.array([0.0, 1.0, -1.0])
COVARIANCE = np.array([[1.0, 0.8, 0.6], [0.8, 4.0, 1.2], [0.6, 1.2, 2.25]])
SHIFT = 0.8
TRUTH = {"mean": MEAN[1], "slope": np.linalg.solve(COVARIANCE[::2, ::2], COVARIANCE[::2, 1])[1]}
DF_COMPLETE = {"mean": ROWS - 1, "slope": ROWS - 3}


def tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a complete table and the same with cells of y and z hidden."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    full = pd.DataFrame(rng.multivariate_normal(MEAN, COVARIANCE, ROWS), columns=["x", "y", "z"])
    hidden = rng.random((ROWS, 2)) < 1 / (1 + np.exp(SHIFT - full[["x"]].to_numpy()))
    return full, full.mask(np.column_stack([np.zeros(ROWS, bool), hidden]))


def mean(frame: pd.DataFrame) -> tuple[float, float]:
    y = frame["y"].dropna()
    return y.mean(), y.var() / len(y)


def slope(frame: pd.DataFrame) -> tuple[float, float]:
    rows = frame.dropna()
    design = np.column_stack([np.ones(len(rows)), rows["x"], rows["z"]])
    coefficients, (rss,), *_ = np.linalg.lstsq(design, rows["y"].to_numpy(), rcond=None)
    inverse = np.linalg.inv(design.T @ design)
    return coefficients[2], inverse[2, 2] * rss / (len(rows) - 3)


ESTIMATES = {"mean": mean, "slope": slope}


def run(seed: int) -> dict[str, Any]:
    """Fit and complete one table; return pooled and plain intervals of both quantities."""
    start = time.perf_counter()
    full, holes = tables(seed)
    fit = fitted(holes, seed)
    imputations = pyl.impute(fit, num_draws=COMPLETED)
    row: dict[str, Any] = {"seed": seed, "missing": float(holes[["y", "z"]].isna().to_numpy().mean())}
    for name, estimate in ESTIMATES.items():
        pooled = imputations.pool(estimate, DF_COMPLETE[name]).iloc[0]
        row[name] = {key: float(pooled[key]) for key in ("estimate", "lower", "upper", "df", "fmi")}
        row[name]["full"] = plain(estimate(full), DF_COMPLETE[name])
        row[name]["observed"] = plain(estimate(holes), DF_COMPLETE[name])
    rhat = max(float(fit.diagnostics[site]["rhat"].nan_to_num(1.0).max()) for site in ("mean", "covariance"))
    return row | {"rhat": rhat, "seconds": time.perf_counter() - start}


def fitted(frame: pd.DataFrame, seed: int) -> pyl.Fit:
    pair = pyl.models.BayesianMVN(pyl.infer_schema(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        return pyl.fit(pair, frame, METHOD, seed=seed, compile=False, progress=False)


def plain(estimate: tuple[float, float], df: int) -> list[float]:
    """Return the ends of the 95 % interval from one table."""
    return [float(end) for end in student.interval(0.95, df, estimate[0], estimate[1] ** 0.5)]


def finished() -> dict[int, dict[str, Any]]:
    path = RESULTS / "pooling.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["seed"]: row for row in rows}


def report(rows: list[dict[str, Any]]) -> None:
    """Print how often each kind of interval holds the truth."""
    for name, truth in TRUTH.items():
        ends = {"pooled": [[row[name]["lower"], row[name]["upper"]] for row in rows]}
        ends |= {kind: [row[name][kind] for row in rows] for kind in ("full", "observed")}
        covered = {k: np.mean([low <= truth <= high for low, high in both]) for k, both in ends.items()}
        length = np.mean([high - low for low, high in ends["pooled"]])
        fmi = np.mean([row[name]["fmi"] for row in rows])
        bias = np.mean([row[name]["estimate"] for row in rows]) - truth
        print(f"{name}: coverage of 95 % intervals over {len(rows)} tables: "
              f"{', '.join(f'{kind} {share:.3f}' for kind, share in covered.items())}; "
              f"mean length {length:.3f}, fmi {fmi:.2f}, bias {bias:+.4f}")  # fmt: skip
    seconds = np.median([row["seconds"] for row in rows])
    print(f"{seconds:.2f} s a table, largest nested R-hat {max(row['rhat'] for row in rows):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    done = finished()
    for seed in range(options.tables):
        if seed not in done:
            append("pooling", [run(seed)])
    report([row for seed, row in finished().items() if seed < options.tables])


if __name__ == "__main__":
    main()
