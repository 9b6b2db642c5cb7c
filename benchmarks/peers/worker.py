"""One contender, one case, one fresh process: prepare, compile, sample, and write what it cost.

Run by `benchmarks.samplers` as `python -m benchmarks.peers.worker LIBRARY MODE CASE DATA OUT`, by this
project's Python or by the peers' own, so that this file needs NumPy only.  `DATA` is an .npz of arrays.
`OUT.npz` gets one array per site, (chain, draw, *site), and `OUT.json` the costs:

- `seconds` and `cpu_seconds` of warm-up and sampling.  The latter is the time of all threads and of
  processes that ended; a library that counts its own stages gives its own numbers.
- `first_seconds`: wall clock of the first, unmeasured run, compilation included.
- `cold_seconds` (with `--cold`, which skips the first run): wall clock from the model's call to the draws.
- `peak_mib`: largest resident memory of the process.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Data = dict[str, Any]
Sites = Mapping[str, np.ndarray]


class Sampled(NamedTuple):
    """Draws of sites (chain, draw, *site); chains that start at one point; costs that a library counts."""

    sites: Sites
    superchain: int = 1
    seconds: float | None = None
    cpu_seconds: float | None = None


class Run(NamedTuple):
    """A prepared contender: what compiles, what samples with a seed, what reads the result."""

    warm: Callable[[], Any]
    sample: Callable[[int], Any]
    sampled: Callable[[Any], Sampled]


class Library(NamedTuple):
    """Where a library's models are and which packages name its version."""

    module: str
    packages: tuple[str, ...]


LIBRARIES = {
    "pyrolatent": Library("ours", ("pyrolatent", "torch")),
    "pyro": Library("pyro_nuts", ("pyro-ppl", "torch")),
    "numpyro": Library("numpyro_nuts", ("numpyro", "jax")),
    "blackjax": Library("blackjax_chees", ("blackjax", "jax")),
    "pymc": Library("pymc_nuts", ("pymc", "pytensor")),
    "nutpie": Library("nutpie_nuts", ("nutpie", "pymc", "pytensor", "numba")),
}


def cpu_seconds() -> float:
    """Return the seconds of all threads of this process and of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mib() -> float:
    """Return the largest resident memory; `ru_maxrss` would count that of the starting process too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round((peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024, 1)


def measured(run: Run, seed: int) -> tuple[Sampled, dict[str, float]]:
    """Sample once; return the draws and what they cost."""
    start, cpu = time.perf_counter(), cpu_seconds()
    result = run.sample(seed)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    sampled = run.sampled(result)
    return sampled, {
        "seconds": seconds if sampled.seconds is None else sampled.seconds,
        "cpu_seconds": cpu if sampled.cpu_seconds is None else sampled.cpu_seconds,
        "total_seconds": seconds,
    }


def main() -> None:
    options = parsed()
    library = LIBRARIES[options.library]
    with np.load(options.data) as file:
        data = dict(file)
    prepare = importlib.import_module(f"benchmarks.peers.{library.module}").prepare
    start = time.perf_counter()
    run = prepare(options.mode, options.case, data, options.draws)
    if not options.cold:
        run.warm()
    first = time.perf_counter() - start
    sampled, costs = measured(run, options.seed)
    costs |= {"cold_seconds": first + costs["total_seconds"]} if options.cold else {"first_seconds": first}
    np.savez(options.out.with_suffix(".npz"), **sampled.sites)
    versions = {"python": platform.python_version()} | {name: version(name) for name in library.packages}
    report = {**costs, "superchain": sampled.superchain, "peak_mib": peak_mib(), "peer_versions": versions}
    options.out.with_suffix(".json").write_text(json.dumps(report))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("mode")
    parser.add_argument("case")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, help="draws per chain, where not the contender's own number")
    parser.add_argument("--cold", action="store_true", help="time everything from the model's call")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
