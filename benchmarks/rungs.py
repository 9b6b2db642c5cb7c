"""What each rung of the ladder costs, on models as people write them.

Run as `python -m benchmarks.rungs`.  Each model runs on the rung that it takes and, though it need
not, on every slower one; all are compared with Pyro's own potential first.  Rungs that run the points
one by one are timed at one point, since 64 cost 64 times that.
"""

import argparse
from typing import Any

import torch

from benchmarks.gradients import (
    Captured,
    described,
    forms,
    largest_error,
    our_contenders,
    random_points,
)
from benchmarks.record import append
from benchmarks.timing import Contender, parse_options, race
from pyrolatent.capture import ladder
from pyrolatent.capture.density import capture_density
from tests.pyro_reference import double_precision, pyro_potential
from tests.user_models import RUNG_BAR

TOLERANCE = 1e-10
COLUMNS = ("1", "64", "1 compiled", "64 compiled")


def main() -> None:
    options = parse_options(__doc__, RUNG_BAR)
    torch.set_num_threads(options.threads)
    print(f"microseconds a gradient, float64, {options.threads} thread(s), median of {options.rounds} rounds")
    print(f"{'model':<25}{'dim':>4} {'rung':<7}{'error':>8}{'ops':>6}" + "".join(f"{c:>13}" for c in COLUMNS))
    rows = []
    with double_precision():
        for name in options.models:
            rows += run(name, options)
    print(f"\nappended to {append('rungs', rows)}")
    if not all(row["error"] <= TOLERANCE for row in rows):
        raise SystemExit("a rung differs from Pyro's potential")


def run(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Check one model on every rung from the one it takes, time them in turns and return their rows."""
    model, make_data = RUNG_BAR[name]
    data = make_data()
    density, points = capture_density(model, data, seed=0), random_points(model, data)
    oracle, pack = pyro_potential(model, data).log_density, density.sites.layout.pack
    flat = torch.stack([pack(point) for point in points])
    rows, contenders = [], {}
    for rung in dict.fromkeys([density.rung, "points", "eager"]):
        ours = described(ladder.Batched(density.batched.point, rung), pack)
        batched, seconds = forms(ours, flat, options)
        row = {
            "model": name,
            "dim": density.dim,
            "rung": rung,
            "taken": rung == density.rung,
            "reason": density.batched.reason,
            "error": largest_error(list(batched.values()), pack, oracle, points),
            "ops": None if rung == "eager" else ours.num_ops(flat if ours.vectorised else flat[0]),
            "compile_seconds": round(seconds, 1),
        }
        rows.append(row)
        contenders |= timed(ours, our_contenders(batched, flat))
    rates = race(contenders, options.rounds, options.seconds)
    for row in rows:
        own = {column: f"{row['rung']} {column}" for column in COLUMNS}
        row["microseconds"] = {c: round(1e6 / rates[key], 1) for c, key in own.items() if key in rates}
        print_row(row)
    return rows


def timed(ours: Captured, contenders: dict[str, Contender]) -> dict[str, Contender]:
    """Return what is worth timing of one rung, under names that tell the rung."""
    columns = COLUMNS if ours.vectorised else COLUMNS[:1]
    return {f"{ours.rung} {column}": one for column, one in contenders.items() if column in columns}


def print_row(row: dict[str, Any]) -> None:
    ops, spent = row["ops"] or "-", row["microseconds"]
    print(f"{row['model']:<25}{row['dim']:>4} {row['rung']:<7}{row['error']:>8.0e}{ops:>6}", end="")
    print("".join(f"{spent[c]:>13,.1f}" if c in spent else f"{'-':>13}" for c in COLUMNS), end="")
    print("" if row["error"] <= TOLERANCE else "  DIFFERS", flush=True)


if __name__ == "__main__":
    main()
