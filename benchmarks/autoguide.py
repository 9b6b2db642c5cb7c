"""SVI with an autoguide on a user's multivariate normal: seconds to one ELBO, beside Pyro's own SVI.

Run as `python -m benchmarks.autoguide`.  263 rows of 12 columns, the model in plain Pyro, float64, one
thread.  All take the same steps: Adam, one learning rate and its course, one draw a step, starts at medians
of prior draws.  Pyro's SVI runs with validation off, with `Trace_ELBO` and with `JitTrace_ELBO`; the faster
counts.  Parameters are kept at some steps of each run.  Afterwards their ELBO is computed for all with the
same noise, and a run has arrived where its running mean is less than 1 nat below the lowest at any run's end.

Seconds and CPU-seconds are those of the steps until then; what comes before the first step (capture,
compilation, tracing) is `setup`, and `first` holds it for the first run, whose caches may be empty.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import SVI as PyroSVI
from pyro.infer import JitTrace_ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal, init_to_median
from torch import Tensor

import pyrolatent as pyl
from benchmarks.record import append
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.infer.optimizers import rate
from tests.pyro_reference import double_precision
from tests.user_models import MVN

GUIDES: dict[str, Callable[..., AutoGuide]] = {
    guide.__name__: partial(guide, init_loc_fn=init_to_median)
    for guide in (AutoMultivariateNormal, AutoNormal)
}
LR = 0.01
EVERY = 25  # steps from kept parameters to the next
UNCOUNTED = 2 * EVERY  # first steps, in which PyTorch's JIT still optimises: they count as the later ones
RUNNING = 5  # kept parameters in a running mean of the ELBO
PARTICLES = 1_000
SLACK = 1.0  # nats
LIMIT = 0.15  # of Pyro's seconds

Params = Mapping[str, Tensor]


class Track:
    """Parameters, wall clock and CPU-seconds after some steps of a run."""

    def __init__(self) -> None:
        self.call, self.count = time.perf_counter(), itertools.count(1)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.kept: list[Any] = []

    def see(self, parameters: Callable[[], Any]) -> None:
        if next(self.count) % EVERY == 0:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            self.kept.append(parameters())

    def microseconds(self, times: list[float]) -> float:
        """Return the mean microseconds of a counted step."""
        first = UNCOUNTED // EVERY - 1
        return 1e6 * (times[-1] - times[first]) / ((len(times) - 1 - first) * EVERY)


class Run(NamedTuple):
    """A finished run: what it kept on its way, and its kept parameters by name."""

    track: Track
    params: list[Params]
    compiled: bool


def ours(compile: bool | str, guide: str, steps: int, seed: int) -> Run:
    model, data = MVN
    tracks: list[Track] = []
    start = time.perf_counter()

    def adam(parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
        optimizer, track = torch.optim.Adam(parameters, lr=lr, fused=True), Track()
        tracks.append(track)
        optimizer.register_step_post_hook(lambda *_: track.see(parameters[0][0].detach().clone))
        return optimizer

    method = pyl.SVI(num_steps=steps, lr=LR, optimizer=adam, num_draws=1)
    fit = pyl.fit(model, data(), method, guide=GUIDES[guide], seed=seed, compile=compile, progress=False)
    assert fit.parameters is not None
    tracks[-1].call = start
    constrained = [fit.parameters.constrained(flat) for flat in tracks[-1].kept]
    return Run(tracks[-1], constrained, fit.info["compiled"])


def pyros(objective: type[Trace_ELBO], name: str, steps: int, seed: int) -> Run:
    model, data = MVN
    (x,) = data().values()
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": LR, "fused": True}}
    optimizer = pyro.optim.LambdaLR({**adam, "lr_lambda": partial(rate, num_steps=steps)})
    with double_precision(), pyro.validation_enabled(False):
        track, guide = Track(), GUIDES[name](model)
        svi = PyroSVI(model, guide, optimizer, objective())
        store = pyro.get_param_store()
        for _ in range(steps):
            svi.step(x)
            optimizer.step()
            track.see(lambda: {name: value.detach().clone() for name, value in store.items()})
    pyro.clear_param_store()
    return Run(track, track.kept, objective is JitTrace_ELBO)


CONTENDERS: dict[str, Callable[..., Run]] = {
    "ours": partial(ours, "auto"),
    "ours compiled": partial(ours, True),
    "Pyro": partial(pyros, Trace_ELBO),
    "Pyro jit": partial(pyros, JitTrace_ELBO),
}


# The ELBO


def location_and_factor(params: Params, sites: list[str]) -> tuple[Tensor, Tensor]:
    """Return location `(D,)` and Cholesky factor `(D, D)` of an autoguide in the unconstrained space."""
    own = {name.split(".", 1)[1]: value for name, value in params.items()}
    if "loc" in own:
        return own["loc"], own["scale"][:, None] * own["scale_tril"]
    loc, scale = (
        torch.cat([own[f"{kind}.{site}"].flatten() for site in sites]) for kind in ("locs", "scales")
    )
    return loc, scale.diag()


def elbo(density: LogDensity, params: Params, noise: Tensor) -> float:
    """Return E_q[log p(x, z)] over `noise (S, D)`, plus the exact entropy of the guide q."""
    loc, factor = location_and_factor(params, list(density.sites.layout.shapes))
    entropy = factor.diagonal().log().sum() + 0.5 * len(loc) * (1 + torch.log(torch.tensor(2 * torch.pi)))
    return float(density.batched(loc + noise @ factor.T)[0].mean() + entropy)


def smoothed(values: list[float]) -> list[float]:
    """Return the mean of each value and those just before it."""
    return [statistics.fmean(values[max(0, end - RUNNING) : end]) for end in range(1, len(values) + 1)]


def judged(runs: dict[str, Run], density: LogDensity, noise: Tensor) -> dict[str, dict[str, Any]]:
    """Return of each contender the ELBO at its end and what it took to the common level."""
    with density.context(), torch.no_grad():
        curves = {
            name: smoothed([elbo(density, params, noise) for params in run.params])
            for name, run in runs.items()
        }
    level = min(curve[-1] for curve in curves.values()) - SLACK
    return {name: arrival(run, curves[name], level) for name, run in runs.items()}


def arrival(run: Run, curve: list[float], level: float) -> dict[str, Any]:
    """Return what a run took until its ELBO had reached the level."""
    track = run.track
    steps = EVERY * (1 + next(index for index, value in enumerate(curve) if value >= level))
    each, cpu = track.microseconds(track.wall), track.microseconds(track.cpu)
    whole = track.wall[-1] - track.call
    return {
        "elbo": curve[-1],
        "level": level,
        "steps": steps,
        "seconds": 1e-6 * each * steps,
        "cpu_seconds": 1e-6 * cpu * steps,
        "microseconds": each,
        "setup_seconds": max(0.0, whole - 1e-6 * each * EVERY * len(curve)),
        "compiled": run.compiled,
    }


# The command


def measure(guide: str, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Let all train with one guide, in turns; return a row for each contender."""
    model, data = MVN
    density = capture_density(model, data(), seed=0)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(PARTICLES, density.dim, generator=random, dtype=torch.float64)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for seed in range(seeds):
        order = names[seed % len(names) :] + names[: seed % len(names)]
        runs = {name: CONTENDERS[name](guide, steps, seed) for name in order}
        for name, one in judged(runs, density, noise).items():
            found[name].append(one)
    return [described(guide, name, steps, rounds) for name, rounds in found.items()]


def described(guide: str, name: str, steps: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a contender: medians over seeds, and the seconds of each."""
    measured = ("elbo", "level", "steps", "seconds", "cpu_seconds", "microseconds", "setup_seconds")
    return {
        "guide": guide,
        "contender": name,
        "num_steps": steps,
        "lr": LR,
        "seeds": list(range(len(rounds))),
        "compiled": rounds[0]["compiled"],
        **{key: statistics.median(one[key] for one in rounds) for key in measured},
        "first_setup_seconds": rounds[0]["setup_seconds"],
        "rounds": [one["seconds"] for one in rounds],
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Print the table of one guide, and our time in Pyro's."""
    columns = {"ELBO": 10, "steps": 7, "us/step": 9, "seconds": 9, "CPU-s": 7, "setup": 7, "first": 7}
    print(f"\n{rows[0]['guide']}, {rows[0]['num_steps']:,} steps")
    print(f"{'':<16}" + "".join(f"{name:>{width}}" for name, width in columns.items()))
    for row in rows:
        print(f"{row['contender']:<16}{row['elbo']:>10,.2f}{row['steps']:>7,.0f}{row['microseconds']:>9,.0f}"
              f"{row['seconds']:>9.2f}{row['cpu_seconds']:>7.2f}{row['setup_seconds']:>7.1f}"
              f"{row['first_setup_seconds']:>7.1f}{' compiled' if row['compiled'] else ''}")  # fmt: skip
    seconds = {row["contender"]: row["seconds"] for row in rows}
    fastest = min(seconds["Pyro"], seconds["Pyro jit"])
    for name in ("ours", "ours compiled"):
        print(f"{name} / the faster of Pyro's: {seconds[name] / fastest:.3f} (bar {LIMIT})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guides", nargs="*", default=list(GUIDES), metavar="GUIDE", help=", ".join(GUIDES))
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for guide in options.guides:
        rows = measure(guide, options.steps, options.seeds)
        report(rows)
        append("autoguide", rows)


if __name__ == "__main__":
    main()
