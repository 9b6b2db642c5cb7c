"""What each rung of the ladder costs, on models as people write them.

Run as `python -m benchmarks.rungs`.  Each model runs on the rung that it takes and on every slower
one, where it need not, and all are compared with Pyro's own potential first.  One by one, 64 points
cost 64 times one point.
"""

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gradients import NUM_POINTS, Batched, largest_error, random_points
from benchmarks.record import append
from benchmarks.timing import Contender, parse_options, race, time_of
from pyrolatent.capture import ladder
from pyrolatent.capture.compile import MAX_COMPILED_OPS
from pyrolatent.capture.density import LogDensity, capture_density
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
            found = run(name, options)
            print_rows(found)
            rows += found
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
    rungs = [density.rung, *(rung for rung in ("points", "eager") if rung != density.rung)]
    rows, contenders = [], {}
    for rung in rungs:
        batched = ladder.Batched(density.batched.point, rung)
        forms: dict[str, Batched] = {"": batched}
        if not options.no_compile and batched.vectorised and num_ops(batched, flat) <= MAX_COMPILED_OPS:
            forms[" compiled"] = compiled(batched, flat)
        rows.append(
            {
                "model": name,
                "dim": density.dim,
                "rung": rung,
                "reason": density.batched.reason if rung == density.rung else "not the one taken",
                "error": largest_error(list(forms.values()), pack, oracle, points),
                "ops": num_ops(batched, flat),
            }
        )
        for suffix, evaluate in forms.items():
            for count in (1, NUM_POINTS) if batched.vectorised else (1,):
                contenders[rung, f"{count}{suffix}"] = Contender(partial(evaluate, flat[:count]), count)
    rates = race(contenders, options.rounds, options.seconds)
    for row in rows:
        row["microseconds"] = {c: round(1e6 / rates[row["rung"], c], 1) for c in COLUMNS if (row["rung"], c) in rates}
    return rows
