"""Does compile="auto" choose well?  Five short and five long fits, each compiled, not compiled and by itself.

Run as `python -m benchmarks.compiling`.  Each fit runs in a process of its own, first with the caches
empty (`cold`), then with what it left there (`warm`); a fit that never compiles runs once and counts
twice.  Rows that are there already are not measured again, so a run can be stopped and go on; delete
the file to start anew.  The end is an error where `auto` takes over 1.1 times the better of the two.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import pyrolatent as pyl
from benchmarks.record import RESULTS, append
from pyrolatent.result import Compile
from tests import user_models
from tests.user_pairs import VAE, vae_data

NAME, LIMIT = "compiling", 1.1
CACHES = ("cold", "warm")
ROWS, FRACTION = 263, 0.1
MODES: dict[str, Compile] = {"never": False, "always": True, "auto": "auto"}
METHODS: dict[str, Callable[[str], Any]] = {
    "eight_schools": lambda length: hmc(length),
    "hierarchical": lambda length: hmc(length),
    "mvn": lambda length: hmc(length),
    "mvn_holes": lambda length: hmc(length, num_draws=1_000),
    "vae": lambda length: pyl.SVI(num_steps=60_000 if length == "long" else 2_000, batch_size=32),
}
CASES = [f"{case} {length}" for length in ("short", "long") for case in METHODS]


def hmc(length: str, num_draws: int = 3_000) -> pyl.HMC:
    return pyl.HMC(num_draws=num_draws) if length == "long" else pyl.HMC()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--single", nargs=2, metavar=("CASE", "MODE"), help="fit in this process")
    options = parser.parse_args()
    if options.single:
        print(json.dumps(single(*options.single)))
        return
    for case in options.cases:
        for mode in MODES:
            if not all(key in finished() for key in keys(case, mode)):
                append(NAME, measured(case, mode))
    report(options.cases)


def keys(case: str, mode: str) -> list[tuple[str, str, str]]:
    """Return what a row is found by: case, mode and state of the caches."""
    return [(case, mode, cache) for cache in (("any",) if mode == "never" else CACHES)]


def finished() -> dict[tuple[str, str, str], dict[str, Any]]:
    path = RESULTS / f"{NAME}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["case"], row["mode"], row["cache"]): row for row in rows}


def measured(case: str, mode: str) -> list[dict[str, Any]]:
    """Return the rows of one case in one mode, each from a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Inductor keeps precompiled headers in the temporary folder, whatever its cache is.
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TMPDIR": folder}
        for _, _, cache in keys(case, mode):
            command = [sys.executable, "-m", f"benchmarks.{NAME}", "--single", case, mode]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"case": case, "mode": mode, "cache": cache, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    return rows


def single(case: str, mode: str) -> dict[str, Any]:
    """Fit once and return seconds of the call, on the clock and of all processors, children included."""
    torch.set_num_threads(1)
    name, length = case.split()
    model, data, guide = problem(name)
    start, cpu = time.perf_counter(), cpu_seconds()
    fit = pyl.fit(
        model, data, METHODS[name](length), guide=guide, seed=0, compile=MODES[mode], progress=False
    )
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(cpu_seconds() - cpu, 2),
        "compiled": fit.info["compiled"],
        "num_ops": fit.info["num_ops"],
        "stages": {stage: round(value, 2) for stage, value in fit.info["seconds"].items()},
    }


def problem(name: str) -> tuple[Any, Any, Any]:
    """Return model, data and guide."""
    if name == "vae":
        torch.manual_seed(0)
        networks = VAE(num_columns=12, hidden=64, latent=8)
        return networks.model, vae_data(2_000, 12), networks.guide
    if name in ("mvn", "mvn_holes"):
        frame = pyl.datasets.job_satisfaction(ROWS, seed=0)
        frame = pyl.ampute(frame, fraction=FRACTION, seed=0) if name == "mvn_holes" else frame
        return pyl.models.BayesianMVN(pyl.infer_schema(frame)), frame, None
    model, data = {
        "eight_schools": (user_models.eight_schools, user_models.eight_schools_data),
        "hierarchical": (user_models.hierarchical_non_centred, user_models.hierarchical_data),
    }[name]
    return model, data(), None


def cpu_seconds() -> float:
    """Return the processor time of this process and of all that it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def report(cases: list[str]) -> None:
    """Print seconds of each fit, and the totals over both states of the caches."""
    rows = finished()
    print(f"{'case':<22}{'ops':>5}" + "".join(f"{mode + ' ' + cache:>13}" for mode, cache in COLUMNS))
    for case in cases:
        line = [found(rows, case, mode, cache) for mode, cache in COLUMNS]
        chosen = " compiled" if line[-1]["compiled"] else ""
        print(
            f"{case:<22}{line[0]['num_ops']:>5}"
            + "".join(f"{row['seconds']:>13.1f}" for row in line)
            + chosen
        )
    ratios = []
    for unit in ("seconds", "cpu_seconds"):
        total = {mode: sum(found(rows, case, mode, cache)[unit] for case in cases for cache in CACHES)
                 for mode in MODES}  # fmt: skip
        ratios.append(total["auto"] / min(total["never"], total["always"]))
        print(f"{unit}: " + ", ".join(f"{mode} {value:.0f}" for mode, value in total.items()), end="")
        print(f"; auto is {ratios[-1]:.2f} of the better of the others")
    if ratios[0] > LIMIT:
        raise SystemExit(f"auto takes more than {LIMIT} times as long")


COLUMNS = [("never", "any"), ("always", "cold"), ("always", "warm"), ("auto", "cold"), ("auto", "warm")]


def found(
    rows: dict[tuple[str, str, str], dict[str, Any]], case: str, mode: str, cache: str
) -> dict[str, Any]:
    return rows[case, mode, "any" if mode == "never" else cache]


if __name__ == "__main__":
    main()
