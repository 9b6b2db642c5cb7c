"""A/B tests: how often a test without effect says there is one, and how long an analysis takes.

Run as `python -m benchmarks.abtests null` and `python -m benchmarks.abtests rows`.

`null`: simulated tests of two arms of about 200 rows each, both N(50, 10), analysed by `abtest.analyze` with
its defaults.  Reported are how often P(better) is above .975 or below .025, which should be 5 %, and how
often the 90 % interval of the uplift holds 0.  Runs are appended in batches of 500 and resumed from there.

`rows`: `analyze` on a million rows, normal, with all labels and with a fifth of them missing.
"""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch

import pyrolatent as pyl
from benchmarks.record import RESULTS, append

BATCH = 500
TESTS, ROWS = 10_000, 400
MANY = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["null", "rows"], help="null, rows")
    parser.add_argument("--tests", type=int, default=TESTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pyl.FitWarning)
    if "null" in options.cases:
        null(options.tests)
    if "rows" in options.cases:
        for share in (0.0, 0.2):
            row = rows(share)
            print(row, flush=True)
            append("abtests", [row])


def null(tests: int) -> None:
    """Analyse tests without effect, those that are not there yet."""
    path = RESULTS / "abtests.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = sum(row["tests"] for row in map(json.loads, lines) if row["case"] == "null")
    for start in range(done, tests, BATCH):
        found = [analysed(seed) for seed in range(start, start + BATCH)]
        decided, held = (int(sum(part)) for part in zip(*found, strict=True))
        row = {"case": "null", "first_seed": start, "tests": BATCH, "decided": decided, "held": held}
        print(row, flush=True)
        append("abtests", [row])


def analysed(seed: int) -> tuple[bool, bool]:
    """Return whether a test without effect is decided either way, and whether its interval holds 0."""
    random = np.random.default_rng(seed)
    frame = table(random, ROWS, 0.0)
    line = pyl.abtest.analyze(frame, "sales", "group", seed=seed).lift.iloc[0]
    return abs(line["p_better"] - 0.5) > 0.475, line["absolute_low"] <= 0 <= line["absolute_high"]


def table(random: np.random.Generator, number: int, unlabelled: float) -> pd.DataFrame:
    """Return rows of two arms that do not differ, some of them without a label."""
    group = pd.Series(np.where(random.random(number) < 0.5, "a", "b"))
    return pd.DataFrame(
        {
            "sales": random.normal(50, 10, size=number),
            "group": group.mask(random.random(number) < unlabelled),
        }
    )


def rows(unlabelled: float) -> dict[str, Any]:
    """Return how long an analysis of many rows takes."""
    frame = table(np.random.default_rng(0), MANY, unlabelled)
    pyl.abtest.analyze(frame.head(1_000), "sales", "group", seed=0)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        pyl.abtest.analyze(frame, "sales", "group", seed=0)
        seconds.append(round(time.perf_counter() - begun, 2))
    return {"case": "rows", "rows": MANY, "unlabelled": unlabelled, "seconds": seconds}


if __name__ == "__main__":
    main()
