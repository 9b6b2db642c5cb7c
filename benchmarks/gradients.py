"""Gradients per second of users' models, ours beside Pyro's own potential.

Run as `python -m benchmarks.gradients`.  Pyro evaluates one point at a time, as its NUTS does it
(`potential_grad`, validation off), so that its rate at 64 points is its rate at one.  Every number
of ours is compared with the oracle first.  Contenders take turns in every round, in an order that
rotates, and the median over the rounds counts.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.ops.integrator import potential_grad
from torch import Tensor

from benchmarks.record import append
from benchmarks.timing import Contender, parse_options, race
from pyrolatent.capture import ladder
from pyrolatent.capture.compile import MAX_COMPILED_OPS
from pyrolatent.capture.density import capture_density
from tests.pyro_reference import (
    LogDensityFn,
    Point,
    double_precision,
    exact_dependent_support,
    pyro_potential,
    raw_potential,
)
from tests.user_models import GRADIENT_BAR, MVN, Data, UserModel

MODELS: dict[str, UserModel] = {**GRADIENT_BAR, "mvn": MVN}
# Where Pyro's own density is wrong, because it freezes the support of the first trace.
HAND_WRITTEN: dict[str, Callable[..., LogDensityFn]] = {"dependent_support": exact_dependent_support}
NUM_POINTS = 64
TOLERANCE = 1e-8
COLUMNS = ("pyro", "pyro jit", "1", "64", "1 compiled", "64 compiled")

Batched = Callable[[Tensor], tuple[Tensor, Tensor]]


class Captured(NamedTuple):
    """Our density: at points (B, D), from a dict of sites to (D,), its rung, its compiled form."""

    batched: Batched
    pack: Callable[[Point], Tensor]
    rung: str
    vectorised: bool
    num_ops: Callable[[Tensor], int]
    compile: Callable[[Tensor], Batched]


def adapt(model: Callable[..., Any], data: Data) -> Captured:
    """Capture `model(**data)`: the one place that knows the API under test."""
    density = capture_density(model, data, seed=0)
    return described(density.batched, density.sites.layout.pack)


def described(batched: ladder.Batched, pack: Callable[[Point], Tensor]) -> Captured:
    return Captured(
        batched=batched,
        pack=pack,
        rung=batched.rung,
        vectorised=batched.vectorised,
        num_ops=lambda points: batched.graph(points).num_ops,
        compile=lambda points: batched.graph(points).compile(),
    )


def forms(ours: Captured, flat: Tensor, options: argparse.Namespace) -> tuple[dict[str, Batched], float]:
    """Return our density plain and, where a fit would compile it, compiled; and the seconds that took."""
    plain = {"": ours.batched}
    if options.no_compile or not ours.vectorised or ours.num_ops(flat) > MAX_COMPILED_OPS:
        return plain, 0.0
    fast, seconds = compiled(ours, flat)
    return {**plain, " compiled": fast}, seconds


def main() -> None:
    options = parse_options(__doc__, MODELS)
    torch.set_num_threads(options.threads)
    print(f"gradients per second, float64, {options.threads} thread(s), median of {options.rounds} rounds")
    print(f"{'model':<18}{'dim':>4} {'rung':<7}{'error':>8}" + "".join(f"{name:>12}" for name in COLUMNS))
    rows = []
    with double_precision():
        for name in options.models:
            rows.append(run(name, options))
            print_row(rows[-1])
    print(f"\nappended to {append('gradients', rows)}")
    if not all(row["error"] <= TOLERANCE for row in rows):
        raise SystemExit("a density differs from its oracle")


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Check one model against its oracle, time it and return its row."""
    model, make_data = MODELS[name]
    data = make_data()
    ours = adapt(model, data)
    points = random_points(model, data)
    flat = torch.stack([ours.pack(point) for point in points])
    batched, seconds = forms(ours, flat, options)
    oracle = HAND_WRITTEN[name](**data) if name in HAND_WRITTEN else pyro_potential(model, data).log_density
    error = largest_error(list(batched.values()), ours.pack, oracle, points)
    contenders = pyro_contenders(model, data, points) | our_contenders(batched, flat)
    return {
        "model": name,
        "dim": flat.shape[1],
        "rung": ours.rung,
        "error": error,
        "ops": ours.num_ops(flat) if ours.vectorised else None,
        "compile_seconds": round(seconds, 1),
        "gradients_per_second": race(contenders, options.rounds, options.seconds),
    }


# Correctness


def random_points(model: Callable[..., Any], data: Data) -> list[Point]:
    """Return unconstrained points, uniform on (-1, 1) as the start values of a fit are."""
    noise = torch.Generator().manual_seed(0)
    shapes = pyro_potential(model, data).shapes
    return [
        {site: 2 * torch.rand(shape, generator=noise) - 1 for site, shape in shapes.items()}
        for _ in range(NUM_POINTS)
    ]


def largest_error(
    densities: list[Batched], pack: Callable[[Point], Tensor], oracle: LogDensityFn, points: list[Point]
) -> float:
    """Return the largest |ours - oracle| / max(1, |oracle|) over values and gradient entries."""
    expected = flattened([oracle(point) for point in points], pack)
    flat = torch.stack([pack(point) for point in points])
    found = torch.stack([torch.cat([part.reshape(-1) for part in density(flat)]) for density in densities])
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())  # NaN if any is


def flattened(results: list[tuple[Tensor, Point]], pack: Callable[[Point], Tensor]) -> Tensor:
    """Return all values, then all gradients, as one vector."""
    values, gradients = zip(*results, strict=True)
    return torch.cat([torch.stack(values), *(pack(gradient) for gradient in gradients)])


# Timing


def pyro_contenders(model: Callable[..., Any], data: Data, points: list[Point]) -> dict[str, Contender]:
    """Return Pyro's potential, plain and through `torch.jit.trace` (its `jit_compile=True`)."""
    contenders = {}
    for name, jit_compile in (("pyro", False), ("pyro jit", True)):
        energy = raw_potential(model, data, jit_compile=jit_compile)[0]
        call = partial(next_gradient, energy, itertools.cycle(points))
        contenders[name] = Contender(call, gradients=1)
    return contenders


def next_gradient(energy: Callable[[Point], Tensor], points: Iterator[Point]) -> None:
    potential_grad(energy, next(points))


def our_contenders(batched: dict[str, Batched], flat: Tensor) -> dict[str, Contender]:
    return {
        f"{count}{suffix}": Contender(partial(density, flat[:count]), gradients=count)
        for suffix, density in batched.items()
        for count in (1, NUM_POINTS)
    }


def compiled(ours: Captured, flat: Tensor) -> tuple[Batched, float]:
    """Return our density compiled for 1 and for all points, and the seconds that took."""
    start = time.perf_counter()
    graphs = {count: ours.compile(flat[:count]) for count in (1, NUM_POINTS)}
    for count, graph in graphs.items():
        graph(flat[:count])
    return lambda position: graphs[len(position)](position), time.perf_counter() - start


def print_row(row: dict[str, Any]) -> None:
    rates = row["gradients_per_second"]
    print(f"{row['model']:<18}{row['dim']:>4} {row['rung']:<7}{row['error']:>8.0e}", end="")
    print("".join(f"{rates[name]:>12,.0f}" if name in rates else f"{'-':>12}" for name in COLUMNS))
    ratios = (f"{rates[name] / rates['pyro']:.1f}x" if name in rates else "" for name in COLUMNS)
    verdict = "" if row["error"] <= TOLERANCE else "DIFFERS"
    print(f"{verdict:>38}" + "".join(f"{ratio:>12}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
