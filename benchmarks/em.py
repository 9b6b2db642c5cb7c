"""EM of one-dimensional mixtures of normals, beside scikit-learn and a loop in NumPy.

Run as `python -m benchmarks.em iterations`, `... memory` and `... masked`.

`iterations`: an iteration on a million rows, 2 and 5 components, from one start without a stopping rule:
ours, `GaussianMixture` of scikit-learn, and a loop in NumPy with densities by SciPy: that of S. Li's article,
which evaluates all densities again for the log-likelihood, and one that does so once.  All take turns;
reported are medians, ratios to the peers, and how far the log-likelihoods are apart, as a share.

`memory`: peak memory of a whole fit of 10 million rows, beside that of the rows.

`masked`: the article's file with all labels hidden (`PYROLATENT_DATA/ab_sales`): the peak that 60 seeds find.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import norm
from torch import Tensor

import pyrolatent as pyl
from benchmarks.record import append
from pyrolatent.infer.em_setup import steps_of
from pyrolatent.pair import as_pair
from pyrolatent.result import Problem

ROWS, LARGE = 1_000_000, 10_000_000
ITERATIONS, ROUNDS = 5, 7
SEEDS = 60
HIGHEST = -4615.762290546  # nats, the better of the two peaks

Parameters = tuple[Any, Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["iterations", "memory", "masked"])
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pyl.FitWarning)
    if options.large:
        large()
        return
    rows: list[dict[str, Any]] = []
    if "iterations" in options.cases:
        rows += [iterations(number) for number in (2, 5)]
    if "memory" in options.cases:
        rows.append(memory())
    if "masked" in options.cases:
        rows.append(masked())
    for row in rows:
        print(row)
    append("em", rows)


def mixture(x: Tensor, number: int) -> None:
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(number)))
    with pyro.plate("component", number):
        location = pyro.sample("location", dist.Normal(0.0, 100.0))
        scale = pyro.sample("scale", dist.HalfNormal(100.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(shares))
        pyro.sample("x", dist.Normal(location[z], scale[z]), obs=x)


def sample(number: int, rows: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    z = torch.randint(number, (rows,), generator=random)
    return 4.0 * z + torch.randn(rows, generator=random, dtype=torch.float64)


def start(number: int) -> Parameters:
    return np.full(number, 1 / number), 4.0 * np.arange(number) + 0.5, np.full(number, 1.5)


def iterations(number: int) -> dict[str, Any]:
    """Return milliseconds of an iteration of each, and their log-likelihoods after the last."""
    x = sample(number, ROWS)
    runs: dict[str, Callable[[], tuple[float, float]]] = {
        "ours": lambda: ours(x, number),
        "scikit-learn": lambda: scikit_learn(x.numpy(), number),
        "numpy": lambda: plain(x.numpy(), number),
        "article": lambda: plain(x.numpy(), number, again=True),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    totals = {}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            milliseconds, totals[name] = run()
            times[name].append(milliseconds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    apart = {name: abs(total / totals["numpy"] - 1) for name, total in totals.items()}
    return {
        "case": "iterations",
        "components": number,
        "rows": ROWS,
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "ratio": {
            name: round(medians["ours"] / medians[name], 4) for name in ("scikit-learn", "article", "numpy")
        },
        "log_likelihood_apart": apart,
    }


def ours(x: Tensor, number: int) -> tuple[float, float]:
    data = {"x": x, "number": number}
    problem = Problem(as_pair(mixture), data, None, 0, torch.float64, torch.device("cpu"), False, False)
    with torch.no_grad():
        steps, _ = steps_of(problem, False)
        named = dict(zip(("shares", "location", "scale"), map(torch.tensor, start(number)), strict=True))
        latents = steps.latents.layout.pack(named)[None]
        steps.improved(latents)
        begun = time.perf_counter()
        for _ in range(ITERATIONS):
            total, latents = steps.improved(latents)
        return 1e3 * (time.perf_counter() - begun) / ITERATIONS, float(total)


def scikit_learn(x: Any, number: int) -> tuple[float, float]:
    from sklearn.mixture import GaussianMixture

    shares, location, scale = start(number)
    model = GaussianMixture(number, covariance_type="spherical", reg_covar=0.0)
    model.weights_, model.means_ = shares, location[:, None]
    model.covariances_, model.precisions_cholesky_ = scale**2, 1 / scale
    rows, total = x[:, None], 0.0
    begun = time.perf_counter()
    for _ in range(ITERATIONS):
        total, log_shares = model._e_step(rows)
        model._m_step(rows, log_shares)
    return 1e3 * (time.perf_counter() - begun) / ITERATIONS, float(total) * len(x)


def plain(x: Any, number: int, *, again: bool = False) -> tuple[float, float]:
    """The article's loop, for any number of components; there densities are evaluated again at the end."""
    shares, location, scale = start(number)
    total = 0.0
    begun = time.perf_counter()
    for _ in range(ITERATIONS):
        joint = [w * norm.pdf(x, m, s) for w, m, s in zip(shares, location, scale, strict=True)]
        evidence = sum(joint)
        total = float(np.log(evidence).sum())
        parts = [one / evidence for one in joint]
        weight = np.array([part.sum() for part in parts])
        location = np.array([(part * x).sum() for part in parts]) / weight
        squares = [(part * (x - m) ** 2).sum() for part, m in zip(parts, location, strict=True)]
        scale = np.sqrt(np.array(squares) / weight)
        shares = weight / len(x)
        if again:
            np.log(sum(w * norm.pdf(x, m, s) for w, m, s in zip(shares, location, scale, strict=True))).sum()
    return 1e3 * (time.perf_counter() - begun) / ITERATIONS, total


def memory() -> dict[str, Any]:
    """Return peak memory of a fit of many rows, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.em", "--large"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    before, after, seconds = (float(part) for part in done.stdout.split())
    return {
        "case": "memory", "rows": LARGE, "rows_mib": round(8 * LARGE / 2**20),
        "before_mib": round(before), "peak_mib": round(after), "seconds": round(seconds, 1),
    }  # fmt: skip


def large() -> None:
    """Fit many rows; print peak memory before and after, and seconds."""
    x = sample(2, LARGE)
    before = peak()
    begun = time.perf_counter()
    pyl.fit(mixture, {"x": x, "number": 2}, pyl.EM(), seed=0, progress=False)
    print(before, peak(), time.perf_counter() - begun)


def peak() -> float:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def masked() -> dict[str, Any]:
    """Return how many seeds find the better peak with default settings."""
    path = Path(os.environ["PYROLATENT_DATA"]) / "ab_sales" / "ab_sales.csv"
    x = torch.tensor(pd.read_csv(path)["sales"].to_numpy())
    totals = [
        pyl.fit(mixture, {"x": x, "number": 2}, pyl.EM(), seed=seed, progress=False).info["log_likelihood"]
        for seed in range(SEEDS)
    ]
    return {
        "case": "masked",
        "seeds": SEEDS,
        "found": sum(abs(total - HIGHEST) < 1e-6 for total in totals),
        "lowest": min(totals),
    }


if __name__ == "__main__":
    main()
