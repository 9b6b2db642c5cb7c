"""A training step of a small VAE: ours beside the essay's loop and Pyro's own SVI.

Run as `python -m benchmarks.svi`.  12 features, 64 hidden units, 8 latents, batches of 32, 256 and
2,048 rows, Adam.  All train the same architecture on the same rows, in turns that rotate:

- `essay`: the loop of the essay: a `DataLoader`, the closed-form divergence, `loss.item()` at each step.
- `essay compiled`: the same as its expert would write it: `torch.compile` of the loss and so of its
  backward pass, fused Adam, rows gathered from a tensor in memory, losses kept and not read.
- `pyro`: `pyro.infer.SVI` with `Trace_ELBO` on the pair, rows gathered from a tensor that is in memory.
- `ours`: the fit's own loop (batches, noise, graph, clipping, Adam, rate, losses kept), as `fit` runs
  it, captured and compiled by inductor; `ours, not compiled` the same without inductor.

Microseconds a step: medians over rounds.  Compilation is not counted and printed apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO
from torch import Tensor

import pyrolatent as pyl
from benchmarks.loops import Loop, compiled_loop, plain_loop
from benchmarks.record import append
from tests.user_pairs import VAE

HIDDEN, LATENT, LR = 64, 8, 1e-3


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    rows = []
    for batch_size in options.batch_sizes:
        rows.append(measure(batch_size, options.steps, options.rounds))
        print(rows[-1], flush=True)
    print(f"appended to {append('svi', rows)}")


def measure(batch_size: int, steps: int, rounds: int) -> dict[str, object]:
    """Return microseconds a step of every contender, and ratios of ours."""
    frame = pyl.datasets.job_satisfaction(10_000, seed=0)
    x = torch.tensor(frame.to_numpy(), dtype=torch.float32)
    compile_seconds: list[float] = []
    contenders: dict[str, Callable[[], float]] = {
        "essay": essay(plain_loop, x, batch_size, steps),
        "essay compiled": essay(compiled_loop, x, batch_size, steps),
        "pyro": pyros(x, batch_size, steps // 4),
        "ours": ours(x, batch_size, steps, True, compile_seconds),
        "ours, not compiled": ours(x, batch_size, steps, False, []),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(contenders[name]())
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "case": "VAE step",
        "batch_size": batch_size,
        "microseconds": {name: round(1e6 * value) for name, value in medians.items()},
        "all_microseconds": {name: [round(1e6 * v) for v in values] for name, values in times.items()},
        "ours_to_essay": round(medians["ours"] / medians["essay"], 3),
        "ours_to_essay_compiled": round(medians["ours"] / medians["essay compiled"], 3),
        "ours_to_pyro": round(medians["ours"] / medians["pyro"], 3),
        "compile_seconds": [round(value, 1) for value in compile_seconds],
    }


def essay(loop: Callable[..., Loop], x: Tensor, batch_size: int, steps: int) -> Callable[[], float]:
    """Return what runs `steps` steps of a plain loop and gives the seconds of one."""
    torch.manual_seed(0)
    networks = VAE(x.shape[1], HIDDEN, LATENT)
    run = loop(networks, bound(networks), x, batch_size, LR)
    return lambda: run(steps)


def bound(networks: VAE) -> Callable[[Tensor], Tensor]:
    """Return the essay's loss of a batch."""

    def loss(batch: Tensor) -> Tensor:
        mean, sd = networks.encoder(batch)
        z = mean + sd * torch.randn_like(sd)
        location, scale = networks.decoder(z)
        variance = scale.square()
        nll = 0.5 * (torch.log(2 * torch.pi * variance) + (batch - location) ** 2 / variance)
        divergence = -0.5 * torch.sum(1 + 2 * sd.log() - mean.pow(2) - sd.square(), dim=1)
        return nll.sum(dim=1).mean() + divergence.mean()

    return loss


def pyros(x: Tensor, batch_size: int, steps: int) -> Callable[[], float]:
    """Return what runs `steps` steps of Pyro's SVI and gives the seconds of one."""
    torch.manual_seed(0)
    networks = VAE(x.shape[1], HIDDEN, LATENT)
    svi = PyroSVI(networks.model, networks.guide, pyro.optim.Adam({"lr": LR}), Trace_ELBO())

    def run() -> float:
        with pyro.validation_enabled(False):
            start = time.perf_counter()
            for _ in range(steps):
                svi.step(x[torch.randint(len(x), (batch_size,))])
            return (time.perf_counter() - start) / steps

    return run


def ours(
    x: Tensor, batch_size: int, steps: int, compile: bool, compile_seconds: list[float]
) -> Callable[[], float]:
    """Return what runs `steps` steps of `fit` and gives the seconds of one."""
    torch.manual_seed(0)
    networks = VAE(x.shape[1], HIDDEN, LATENT)
    method = pyl.SVI(num_steps=steps, lr=LR, batch_size=batch_size, num_draws=1)

    def run() -> float:
        fit = pyl.fit(
            networks.model, {"x": x}, method, guide=networks.guide, seed=0, compile=compile, progress=False
        )
        compile_seconds.append(fit.info["seconds"]["compilation"])
        return fit.info["seconds"]["training"] / steps

    return run


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("batch_sizes", nargs="*", type=int, default=[32, 256, 2_048])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    steps = pyl.SVI().num_steps
    parser.add_argument("--steps", type=int, default=steps, help="steps of a turn; Pyro takes a quarter")
    return parser.parse_args()


if __name__ == "__main__":
    main()
