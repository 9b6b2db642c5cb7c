"""How cost grows: with rows, with chains, with draws.

Run as `python -m benchmarks.scaling gradient|chains|memory`.  Every case runs in a process of its own,
so that peak memory is its own, and is appended to `benchmarks/results/scaling_*.jsonl` when it is done.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyrolatent as pyl
from benchmarks.mvn import FRACTION, ROWS, tables
from benchmarks.record import append
from benchmarks.timing import Contender, race
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.infer.hmc import leapfrog_graph
from pyrolatent.infer.tuning import flat_covariance
from tests import user_models as um
from tests.user_pairs import vae

Row = dict[str, Any]
Model = Callable[..., None]

COLUMNS = 12
POINTS = (1, 64)
CHAINS = (4, 16, 64, 256, 1_024)
IMAGE = Path("docs/images/chains.png")
PLAIN, HOLES, RECYCLED = "complete", "10 % missing", "10 % missing, masks of 1,000 rows"


# gradient: rows


GRADIENT = [("ours", PLAIN, n) for n in (10**3, 10**5, 10**7)]
GRADIENT += [("user", PLAIN, n) for n in (10**3, 10**5, 10**7)]
GRADIENT += [("ours", HOLES, 10**k) for k in (3, 4, 5, 6)]
GRADIENT += [("ours", RECYCLED, 10**k) for k in (4, 5, 6)]


def pair() -> pyl.models.BayesianMVN:
    return pyl.models.BayesianMVN(
        pyl.infer_schema(pyl.datasets.job_satisfaction(ROWS, seed=0)), standardise=False
    )


def rows_and_mask(table: str, num_rows: int) -> tuple[Tensor, Tensor]:
    """Return correlated rows `(N, 12)` and where they are observed."""
    random = torch.Generator().manual_seed(0)
    if table == PLAIN:
        mask = torch.ones(num_rows, COLUMNS, dtype=torch.bool)
    else:
        masks = 1_000 if table == RECYCLED else num_rows
        mask = torch.rand(masks, COLUMNS, generator=random) >= FRACTION
        mask = mask[torch.randint(masks, (num_rows,), generator=random)] if table == RECYCLED else mask
    x = torch.randn(num_rows, COLUMNS, generator=random, dtype=torch.float64)
    x += torch.randn(num_rows, 1, generator=random, dtype=torch.float64)
    return x.masked_fill_(~mask, 0.0), mask


def gradient_row(who: str, table: str, num_rows: int) -> Row:
    """Time gradients of the multivariate normal at 1 and at 64 points."""
    x, mask = rows_and_mask(table, num_rows)
    patterns = len(torch.unique((mask.long() << torch.arange(COLUMNS)).sum(1)))
    model, data = (pair().model, {"x": x, "mask": mask}) if who == "ours" else (um.mvn, {"x": x})
    before, start = peak(), time.perf_counter()
    density = capture_density(model, data, seed=0)
    seconds = time.perf_counter() - start
    contenders = {}
    with density.context(), torch.no_grad():
        for count in POINTS:
            points = 0.1 * torch.randn(count, density.dim, generator=torch.Generator().manual_seed(1))
            contenders[str(count)] = Contender(partial(density.batched.graph(points), points), 1)
        rates = race(contenders, rounds=9, seconds=0.2)
    return {
        "who": who,
        "table": table,
        "rows": num_rows,
        "patterns": patterns,
        "setup_seconds": seconds,
        "setup_mib": peak() - before,
        "microseconds": {count: 1e6 / rate for count, rate in rates.items()},
    }


def judge_gradient(rows: list[Row]) -> None:
    """Print what many rows cost beside the 1,000 of the same patterns, the bar of complete ones being 1.2."""
    cost = {(row["who"], row["table"], row["rows"]): row["microseconds"] for row in rows}
    pairs = [
        (("ours", PLAIN, 10**7), ("ours", PLAIN, 10**3)),
        (("user", PLAIN, 10**7), ("user", PLAIN, 10**3)),
    ]
    pairs += [
        (("ours", RECYCLED, 10**6), ("ours", HOLES, 10**3)),
        (("ours", RECYCLED, 10**6), ("ours", RECYCLED, 10**4)),
    ]
    for many, few in pairs:
        for count, microseconds in cost[many].items():
            print(f"{many} / {few}, {count} point(s): {microseconds / cost[few][count]:.2f}")


# chains


CHAIN_MODELS = ("mvn", "mvn, 10 % missing", "eight schools", "hierarchical")


def problem(name: str) -> tuple[Model, Mapping[str, Any]]:
    """Return a model and its data by name."""
    if name.startswith("mvn"):
        chosen, frame = pair(), tables(0)[name != "mvn"]
        return chosen.model, chosen.schema.encode(frame)
    model, data = {
        "eight schools": um.REFERENCES["eight_schools-eight_schools_noncentered"],
        "hierarchical": um.RUNG_BAR["hierarchical_non_centred"],
        "logistic": um.GRADIENT_BAR["logistic"],
    }[name]
    return model, data()


def chains_row(name: str, compiled: bool) -> Row:
    """Time one leapfrog step of 4 to 1,024 chains."""
    density = capture_density(*problem(name), seed=0)
    with density.context(), torch.no_grad():
        contenders = {str(number): Contender(step(density, number, compiled), number) for number in CHAINS}
        rates = race(contenders, rounds=9, seconds=0.2)
    return {"model": name, "compiled": compiled, "dim": density.dim,
            "microseconds": {number: 1e6 / rate for number, rate in rates.items()}}  # fmt: skip


def step(density: LogDensity, number: int, compiled: bool) -> Callable[[], Any]:
    """Return one leapfrog step of `number` chains, called once so that it is compiled."""
    graph = leapfrog_graph(density, number, compiled, 1)
    assert graph is not None
    position, momentum = 0.1 * torch.randn(2, number, density.dim, generator=torch.Generator().manual_seed(1))
    call = partial(graph, position, momentum, torch.full((number, 1), 1e-3), flat_covariance(density))
    call()
    return call


def judge_chains(rows: list[Row]) -> None:
    """Say whether the cost of a chain-step falls from 4 to 64 to 1,024 chains, and draw the figure."""
    for row in rows:
        cost = [row["microseconds"][str(number)] for number in CHAINS[::2]]
        falls = all(many < few for few, many in pairwise(cost))
        print(f"{row['model']}, compiled={row['compiled']}: the cost {'falls' if falls else 'DOES NOT FALL'}")
    plot(rows, IMAGE)


def plot(rows: Iterable[Row], path: Path) -> None:
    """Draw microseconds per chain and leapfrog step over the number of chains."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, Any] = {}
    for row in rows:
        name, cost = row["model"], row["microseconds"]
        (line,) = axes.loglog(
            [int(number) for number in cost], list(cost.values()), marker="o", color=colours.get(name),
            linestyle="-" if row["compiled"] else ":", label=name + (", compiled" if row["compiled"] else ""),
        )  # fmt: skip
        colours[name] = line.get_color()
    axes.set_xticks(CHAINS, [f"{number:,}" for number in CHAINS])
    axes.minorticks_off()
    axes.set(xlabel="chains", ylabel="microseconds per chain and leapfrog step")
    figure.legend(loc="outside right upper", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


# memory: draws


DRAWS = {"HMC": 150, "SVI": 1_000}  # the defaults
MEMORY = ("mvn", "mvn, 10 % missing", "eight schools", "logistic", "vae")


def memory_row(name: str, factor: int) -> Row:
    """Fit with `factor` times the default draws; report peak memory and the size of what is kept, in MiB."""
    if name == "vae":
        model, guide, data = vae()  # latents of rows are drawn on demand, none is kept
        method: Any = pyl.SVI(num_steps=2_000, num_draws=factor * DRAWS["SVI"])
    else:
        (model, data), guide = problem(name), None
        method = pyl.HMC(num_draws=factor * DRAWS["HMC"])
    before, start = peak(), time.perf_counter()
    fit = pyl.fit(model, data, method, guide=guide, seed=0, progress=False)
    kept = [*fit.samples.values(), *fit.sample_stats.values()]
    size = sum(values.numel() * values.element_size() for values in kept) / 2**20
    return {"model": name, "draws": factor, "peak_mib": peak(), "before_mib": before, "kept_mib": size,
            "rest_mib": peak() - size, "seconds": time.perf_counter() - start}  # fmt: skip


def judge_memory(rows: list[Row]) -> None:
    """Print what a fit needs besides the draws that it keeps."""
    rest = {(row["model"], row["draws"]): row["rest_mib"] for row in rows}
    for name in MEMORY:
        print(f"{name}: {rest[name, 1]:.0f} MiB besides the draws, {rest[name, 10]:.0f} MiB with 10x as many")


def peak() -> float:
    """Return the largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# the command


COMMANDS: dict[str, tuple[Callable[..., Row], list[tuple[Any, ...]], Callable[[list[Row]], None]]] = {
    "gradient": (gradient_row, GRADIENT, judge_gradient),
    "chains": (chains_row, [(name, c) for name in CHAIN_MODELS for c in (False, True)], judge_chains),
    "memory": (memory_row, [(name, factor) for name in MEMORY for factor in (1, 10)], judge_memory),
}


def run(command: str, threads: int) -> list[Row]:
    """Run the cases of a command one after the other, each in a fresh process; return their rows."""
    case, cases, _ = COMMANDS[command]
    rows = []
    for arguments in cases:
        with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
            rows.append(pool.submit(case, *arguments).result())
        append(f"scaling_{command}", rows[-1:])
        print(" ".join(f"{key}={shown(value)}" for key, value in rows[-1].items()), flush=True)
    return rows


def shown(value: Any) -> str:
    """Return a figure as the table shows it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(entry)}" for key, entry in value.items()) + "}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    COMMANDS[options.command][2](run(options.command, options.threads))


if __name__ == "__main__":
    main()
