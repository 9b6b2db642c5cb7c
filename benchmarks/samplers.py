"""Samplers beside their peers: effective sample size per CPU-second, and time to enough draws from cold.

Run as `python -m benchmarks.samplers [case ...] --rounds 3`; `make bench` makes the peers' environment first.
Each contender samples in a fresh process with one BLAS thread (`benchmarks.peers.worker`), all take turns in
an order that rotates, and one function judges all draws: ESS is the smallest of bulk, tail and sd over all
quantities, each capped at the number of draws.  Posterior means must agree, so that all sample one posterior.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.cases import CASES
from benchmarks.peers.quantities import quantities
from benchmarks.record import append
from pyrolatent.diagnostics import MAX_RHAT, mcse_mean, min_ess, nested_rhat

PEERS = Path(".venv-bench/bin/python")
ENOUGH = 1_000  # draws' worth of the run from cold
MARGIN = 1.5  # more draws than the timed runs would need for that
MAX_DIFFERENCE = 5.0  # of posterior means, in combined Monte Carlo standard errors
COLD_CASES = ("mvn",)
EVERYWHERE = tuple(CASES)
FEW_ROUNDS = 1  # of contenders that take minutes, and are tens of times slower
COMPLETE = ("mvn", "eight schools", "radon", "logistic")


class Contender(NamedTuple):
    """A library in one of its modes, and the cases it takes part in."""

    name: str
    library: str
    mode: str = "-"
    cases: tuple[str, ...] = EVERYWHERE
    most_rounds: int = 1_000

    @property
    def python(self) -> str:
        return sys.executable if self.library in ("pyrolatent", "pyro") else str(PEERS)


CONTENDERS = (
    Contender("ours", "pyrolatent", "auto"),
    Contender("ours compiled", "pyrolatent", "compiled"),
    Contender("user's model", "pyrolatent", "user auto", ("mvn",)),
    Contender("user's model compiled", "pyrolatent", "user compiled", ("mvn",)),
    Contender("NumPyro vectorized", "numpyro", "vectorized"),
    Contender("NumPyro sequential", "numpyro", "sequential"),
    Contender("nutpie", "nutpie"),
    Contender("BlackJAX ChEES", "blackjax", "1000", ("mvn",)),
    Contender("BlackJAX ChEES, short", "blackjax", "200", ("mvn",)),
    Contender("PyMC", "pymc"),
    Contender("Pyro", "pyro", "plain", COMPLETE, FEW_ROUNDS),
    Contender("Pyro jit", "pyro", "jit", COMPLETE, FEW_ROUNDS),
)
OURS = ("ours", "ours compiled")


class Judged(NamedTuple):
    """A finished run: its costs and how good its draws are."""

    costs: dict[str, Any]
    draws: Tensor
    ess: float
    rhat: float

    @property
    def rate(self) -> float:
        return self.ess / self.costs["cpu_seconds"]


class Failed(Exception):
    """A contender ended with an error, whose last lines these are."""


# Running


def run(one: Contender, case: str, folder: Path, seed: int, caches: Path, *extra: str) -> Judged:
    """Run a contender once in a process of its own and judge its draws."""
    out = folder / "out"
    command = [one.python, "-m", "benchmarks.peers.worker", one.library, one.mode, case,
               str(folder / f"{case}.npz"), str(out), "--seed", str(seed), *extra]  # fmt: skip
    done = subprocess.run(command, env=environment(caches), capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr[-1_000:])
    with np.load(out.with_suffix(".npz")) as sites:
        draws = torch.as_tensor(quantities(case, sites))
    costs = json.loads(out.with_suffix(".json").read_text())
    ess, rhat = float(min_ess(draws).min()), float(nested_rhat(draws, costs["superchain"]).max())
    return Judged(costs, draws, ess, rhat)


def environment(caches: Path) -> dict[str, str]:
    """Return the variables of a worker: one thread for BLAS, and caches of compiled code in `caches`."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "PYTENSOR_FLAGS": f"base_compiledir={caches / 'pytensor'}",
        "NUMBA_CACHE_DIR": str(caches / "numba"),
        "XDG_CACHE_HOME": str(caches / "user"),
    }


def play(case: str, contenders: list[Contender], rounds: int, folder: Path) -> dict[str, list[Judged]]:
    """Let all contenders take turns; the first round fills their caches of compiled code."""
    np.savez(folder / f"{case}.npz", **CASES[case]())
    runs: dict[str, list[Judged]] = {one.name: [] for one in contenders}
    for turn in range(rounds):
        start = turn * len(contenders) // rounds
        for one in contenders[start:] + contenders[:start]:
            if turn >= one.most_rounds:
                continue
            try:
                runs[one.name].append(
                    run(one, case, folder, turn + 1, folder / f"caches-{CONTENDERS.index(one)}")
                )
            except Failed as error:
                print(f"{case}: {one.name} failed\n{error}", file=sys.stderr, flush=True)
    return runs


def from_cold(one: Contender, case: str, folder: Path, draws: int) -> dict[str, Any]:
    """Seconds from the model's call to the draws, caches empty and then filled; None where too weak."""
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as caches:
        for name in ("cold", "warm"):
            judged = run(one, case, folder, 1, Path(caches), "--cold", "--draws", str(draws))
            enough = judged.ess >= ENOUGH and judged.rhat < MAX_RHAT
            row |= {f"{name}_wall": judged.costs["cold_seconds"], f"{name}_enough": enough}
    return {**row, "cold_draws": draws}


# Judging


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of means in combined Monte Carlo standard errors."""
    errors = torch.hypot(mcse_mean(first), mcse_mean(second))
    return float(((first.mean((0, 1)) - second.mean((0, 1))).abs() / errors).max())


def described(case: str, name: str, runs: list[Judged], reference: Tensor) -> dict[str, Any]:
    """Return the row of a contender: medians, and every round's figures."""
    rates, costs = [one.rate for one in runs], [one.costs for one in runs]
    compile_seconds = [max(0.0, cost["first_seconds"] - cost["total_seconds"]) for cost in costs]
    return {
        "case": case,
        "contender": name,
        "draws": list(runs[0].draws.shape[:2]),
        "ess": statistics.median(one.ess for one in runs),
        "rhat": None if np.isnan(runs[0].rhat) else max(one.rhat for one in runs),
        "cpu_seconds": statistics.median(cost["cpu_seconds"] for cost in costs),
        "seconds": statistics.median(cost["seconds"] for cost in costs),
        "ess_per_cpu_second": statistics.median(rates),
        "rounds": rates,
        "compile_seconds": {
            "cold": compile_seconds[0],
            "warm": statistics.median(compile_seconds[1:] or [0]),
        },
        "peak_mib": max(cost["peak_mib"] for cost in costs),
        "mcse": max(difference(one.draws, reference) for one in runs),
        "peer_versions": costs[0]["peer_versions"],
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Print the table of one case; `x ours` is our rate in this one's, and with ours compiled."""
    mine = {row["contender"]: row["ess_per_cpu_second"] for row in rows}
    print(f"\n{rows[0]['case']}\n{'':<29}{'ESS':>7}{'R-hat':>7}{'CPU-s':>8}{'ESS/CPU-s':>10}{'spread':>15}"
          f"{'x ours':>8}{'x comp.':>8}{'compile cold, warm':>20}{'MiB':>7}{'MCSEs':>6}")  # fmt: skip
    for row in rows:
        rate, rounds = row["ess_per_cpu_second"], row["rounds"]
        spread = f"{min(rounds):,.0f} - {max(rounds):,.0f}"
        times = "".join(f"{mine.get(name, np.nan) / rate:>8.2f}" for name in OURS)
        compiling = "{cold:.1f} s, {warm:.1f} s".format(**row["compile_seconds"])
        rhat = row["rhat"] or np.nan
        print(f"{row['contender']:<29}{row['ess']:>7,.0f}{rhat:>7.3f}{row['cpu_seconds']:>8.2f}"
              f"{rate:>10,.1f}{spread:>15}{times}{compiling:>20}{row['peak_mib']:>7,.0f}"
              f"{row['mcse']:>6.1f}", flush=True)  # fmt: skip
    for row in (row for row in rows if "cold_wall" in row):
        walls = (f"{row[f'{name}_wall']:.1f} s{'' if row[f'{name}_enough'] else ' (too weak)'}"
                 for name in ("cold", "warm"))  # fmt: skip
        print(f"{row['contender']:<29}to ESS {ENOUGH:,} with {row['cold_draws']} draws a chain, caches "
              f"empty, filled: {', '.join(walls)}", flush=True)  # fmt: skip


def needed_draws(row: dict[str, Any]) -> int:
    """Return draws a chain that should be worth enough, at least 50."""
    share = max(ENOUGH / row["ess"], ((row["rhat"] or 1.0) - 1) / (MAX_RHAT - 1))  # both shrink as draws grow
    return max(50, round(MARGIN * share * row["draws"][1]))


def judge(case: str, contenders: list[Contender], rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Run one case and return its rows."""
    runs = play(case, contenders, rounds, folder)
    finished = {name: done for name, done in runs.items() if done}
    if not finished:
        raise SystemExit(f"{case}: no contender finished")
    reference = next(iter(finished.values()))[0].draws
    rows = [described(case, name, done, reference) for name, done in finished.items()]
    if case in COLD_CASES:
        by_name = {one.name: one for one in contenders}
        for row in (row for row in rows if not row["contender"].startswith("Pyro")):
            row |= from_cold(by_name[row["contender"]], case, folder, needed_draws(row))
    return rows


def main() -> None:
    options = parsed()
    chosen = [one for one in CONTENDERS if not options.only or one.name in options.only]
    if not PEERS.exists() and any(one.python == str(PEERS) for one in chosen):
        raise SystemExit(f"the peers' environment {PEERS} is missing: run `make bench`, which makes it")
    apart = []
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            playing = [one for one in chosen if case in one.cases]
            rows = judge(case, playing, options.rounds, Path(folder))
            report(rows)
            append("samplers", rows)
            apart += [f"{case}: {row['contender']}" for row in rows if not row["mcse"] < MAX_DIFFERENCE]
    if apart:
        raise SystemExit(f"posterior means differ by {MAX_DIFFERENCE} standard errors or more: {apart}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--only", nargs="+", help="names of contenders", choices=[c.name for c in CONTENDERS])
    return parser.parse_args()


if __name__ == "__main__":
    main()
