"""The bars of the Bayesian multivariate normal on the job-satisfaction survey, 263 rows x 12 columns.

Run as `python -m benchmarks.mvn speed|residuals|coverage|user`.  Every finished run is appended to
`benchmarks/results/mvn_*.jsonl`; `residuals` and `coverage` go on where an earlier run ended.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import pyrolatent as pyl
from benchmarks.record import RESULTS, append
from benchmarks.timing import Contender, race
from pyrolatent.capture.density import capture_density
from pyrolatent.diagnostics import mcse_mean
from tests.user_models import MVN

ROWS = 263
FRACTION = 0.1
QUANTITIES = ("mean", "covariance", "correlation")


def tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a complete sample of the survey and the same with 10 % of the cells hidden."""
    complete = pyl.datasets.job_satisfaction(ROWS, seed=seed)
    return complete, pyl.ampute(complete, fraction=FRACTION, seed=seed)


def fitted(frame: pd.DataFrame, seed: int, **settings: Any) -> pyl.Fit:
    pair = pyl.models.BayesianMVN(pyl.infer_schema(frame), standardise=False)
    return pyl.fit(pair, frame, seed=seed, progress=False, **settings)


def worst(fit: pyl.Fit) -> dict[str, float]:
    """Return the largest nested R-hat and the smallest ESS over means, covariances and correlations."""
    rhat = torch.cat([fit.diagnostics[name]["rhat"].flatten() for name in QUANTITIES])
    ess = torch.cat([fit.diagnostics[name]["ess"].flatten() for name in QUANTITIES])
    return {"rhat": float(rhat[rhat.isfinite()].max()), "ess": float(ess[ess.isfinite()].min())}


def speed(seeds: list[int]) -> None:
    """Seconds from the call to the fit, compiled and not; a compiled run follows a warm one of the cache."""
    for seed in seeds:
        for name, frame in zip(("complete", "10 % missing"), tables(seed), strict=True):
            for compile in (False, True):
                start, cpu = time.perf_counter(), time.process_time()
                fit = fitted(frame, seed, compile=compile)
                row = {"table": name, "seed": seed, "compiled": compile, **worst(fit),
                       "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                       "stages": fit.info["seconds"], "ops": fit.info["num_ops"]}  # fmt: skip
                append("mvn_speed", [row])
                print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]


def residuals(seeds: list[int]) -> None:
    """Mean |correlation residual| of the posterior mean beside the plain (pairwise) estimator's."""
    truth = off_diagonal(pyl.datasets.job_satisfaction_correlation().to_numpy())
    for seed in missing_seeds("mvn_residuals", seeds):
        row: dict[str, Any] = {"seed": seed}
        for name, frame in zip(("complete", "holes"), tables(seed), strict=True):
            fit = fitted(frame, seed)
            posterior = fit.samples["correlation"].mean((0, 1)).numpy()
            row[name] = {"bayes": float(np.abs(off_diagonal(posterior) - truth).mean()),
                         "plain": float(np.abs(off_diagonal(frame.corr().to_numpy()) - truth).mean()),
                         **worst(fit)}  # fmt: skip
        append("mvn_residuals", [row])
        print(row, flush=True)
    rows = finished("mvn_residuals", seeds)
    for name in ("complete", "holes"):
        differences = [row[name]["bayes"] - row[name]["plain"] for row in rows]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        print(f"{name}: mean bayes {statistics.mean(row[name]['bayes'] for row in rows):.5f}, "
              f"plain {statistics.mean(row[name]['plain'] for row in rows):.5f}, difference "
              f"{statistics.mean(differences):+.5f} (standard error {error:.5f}) over {len(rows)} samples; "
              f"worst rhat {max(row[name]['rhat'] for row in rows):.4f}, "
              f"worst ess {min(row[name]['ess'] for row in rows):.0f}")  # fmt: skip


def coverage(seeds: list[int]) -> None:
    """Share of hidden cells inside their 90 % intervals."""
    for seed in missing_seeds("mvn_coverage", seeds):
        complete, holes = tables(seed)
        lower, upper = pyl.impute(fitted(holes, seed)).interval(0.9)
        hidden = holes.isna().to_numpy()
        inside = (lower.to_numpy() <= complete.to_numpy()) & (complete.to_numpy() <= upper.to_numpy())
        row = {"seed": seed, "hidden": int(hidden.sum()), "covered": int(inside[hidden].sum())}
        append("mvn_coverage", [row])
        print(row, flush=True)
    rows = finished("mvn_coverage", seeds)
    share = sum(row["covered"] for row in rows) / sum(row["hidden"] for row in rows)
    print(f"coverage of 90 % intervals over {len(rows)} tables: {share:.4f}")


def user(seeds: list[int]) -> None:
    """The same model in plain Pyro: same posterior, and gradients per second beside ours."""
    model, _ = MVN
    frame, _ = tables(seeds[0])
    x = torch.tensor(frame.to_numpy())
    ours = fitted(frame, seeds[0], method=pyl.HMC())
    plain = pyl.fit(model, {"x": x}, pyl.HMC(), seed=seeds[0] + 1, progress=False)
    errors = difference(ours.samples["mean"], plain.samples["mean"])
    print(f"largest difference of posterior means: {errors:.2f} combined MCSE")
    contenders: dict[str, Contender] = {}
    pair = pyl.models.BayesianMVN(pyl.infer_schema(frame), standardise=False)
    problems = {"ours": (pair.model, pair.schema.encode(frame)), "user": (model, {"x": x})}
    for name, (function, data) in problems.items():
        density = capture_density(function, data, seed=0)
        for count in (1, 4, 64):
            points = 0.1 * torch.randn(count, density.dim, dtype=torch.float64)
            with density.context():
                graph = density.batched.graph(points)
                compiled = graph.compile()
                compiled(points)
            contenders[f"{name} {count}"] = Contender(partial(graph, points), count)
            contenders[f"{name} {count} compiled"] = Contender(partial(compiled, points), count)
    rates = race(contenders, rounds=7, seconds=0.2)
    append("mvn_user", [{"gradients_per_second": rates, "mcse": errors}])
    for count in (1, 4, 64):
        for suffix in ("", " compiled"):
            mine, theirs = rates[f"ours {count}{suffix}"], rates[f"user {count}{suffix}"]
            print(f"{count} points{suffix}: ours {1e6 / mine:.1f} us, user {1e6 / theirs:.1f} us a gradient, "
                  f"{theirs / mine:.2f} of our speed")  # fmt: skip


def difference(first: Tensor, second: Tensor) -> float:
    errors = torch.hypot(mcse_mean(first), mcse_mean(second))
    return float(((first.mean((0, 1)) - second.mean((0, 1))).abs() / errors).max())


def finished(name: str, seeds: list[int]) -> list[dict[str, Any]]:
    path = RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["seed"] in seeds]


def missing_seeds(name: str, seeds: list[int]) -> list[int]:
    done = {row["seed"] for row in finished(name, seeds)}
    return [seed for seed in seeds if seed not in done]


COMMANDS: dict[str, tuple[Callable[[list[int]], None], int]] = {
    "speed": (speed, 3), "residuals": (residuals, 20), "coverage": (coverage, 50), "user": (user, 1),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command, runs = COMMANDS[options.command]
    command(list(range(runs)))


if __name__ == "__main__":
    main()
