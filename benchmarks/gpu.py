"""Speed on a GPU: chains of the multivariate normal, and a training step of a small VAE.

Run as `python -m benchmarks.gpu`; it takes some minutes and ends with an error where torch finds no GPU.
`--device cpu` runs the same code with small numbers, for trying it out, and keeps nothing.

- `mvn`: the job-satisfaction survey, 263 rows x 12 columns, with 64, 1,024 and 8,192 chains, compiled and
  not.  Seconds of each stage; ESS is the smallest over means, covariances and correlations.
- `vae`: the step of `benchmarks.svi` at batches of 256 and 8,192 rows.  Kernels are those that run on the
  device, by torch's profiler; on a CPU, operators.  Costs of a step are differences of a long and a short
  run, so that capture, compiling and the first steps are not among them.

`compile_seconds` begin with an empty cache.  Rows are appended as they are made.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import pyrolatent as pyl
from benchmarks.mvn import fitted, tables, worst
from benchmarks.record import append
from benchmarks.svi import HIDDEN, LATENT, LR
from tests.user_pairs import VAE

Row = dict[str, Any]

BAR = 3.0  # times the kernels' time that a step may take
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Size(NamedTuple):
    """How much is run: many chains need few draws each."""

    chains: dict[int, int]  # chains -> draws of each
    batches: tuple[int, ...]
    steps: int
    profiled: int


FULL = Size({64: 150, 1_024: 50, 8_192: 20}, (256, 8_192), 2_000, 200)
SMALL = Size({16: 20}, (32,), 100, 300)


# Chains


def mvn_rows(device: torch.device, size: Size) -> Iterator[Row]:
    """Fit the survey with each number of chains."""
    frame, _ = tables(0)
    fitted(frame, 0, method=pyl.HMC(16, 20, 10), device=device, compile=False)  # kernels are loaded
    for chains, draws in size.chains.items():
        method = pyl.HMC(num_chains=chains, num_warmup=100, num_draws=draws)
        capture = 0.0
        for compile in (False, True):
            run = partial(fitted, frame, 0, method=method, device=device, compile=compile)
            fit, row = timed(device, run)
            stages = fit.info["seconds"]
            sampling = stages["warmup"] + stages["sampling"]
            capture = capture or stages["capture"]
            found = worst(fit)
            yield row | found | {
                "case": "mvn", "chains": chains, "draws": draws, "compiled": fit.info["compiled"],
                "ops": fit.info["num_ops"], "stages": stages, "capture_seconds": capture,
                "compile_seconds": stages["capture"] - capture,
                "leapfrog_steps": int(fit.sample_stats["n_steps"].max(0).values.sum()),
                "ess_per_second": found["ess"] / sampling,
                "ess_per_second_of_draws": found["ess"] / stages["sampling"],
            }  # fmt: skip


def timed(device: torch.device, run: Any) -> tuple[pyl.Fit, Row]:
    """Return a fit, with its seconds and the most memory that it had on the device, in MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    fit = run()
    row: Row = {"seconds": time.perf_counter() - start}
    if device.type == "cuda":
        row["peak_device_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return fit, row


# Training steps


def vae_rows(device: torch.device, size: Size) -> Iterator[Row]:
    """Train with each size of batches."""
    x = torch.tensor(pyl.datasets.job_satisfaction(10_000, seed=0).to_numpy(), dtype=torch.float32)
    for batch_size in size.batches:
        for compile in (False, True):
            first = train(x, batch_size, 10, device, compile)
            short, long = (train(x, batch_size, n * size.steps, device, compile) for n in (1, 3))
            step = (seconds_of(long, "training") - seconds_of(short, "training")) / (2 * size.steps)
            few, many = (profiled(x, batch_size, n * size.profiled, device, compile) for n in (1, 3))
            per_step = {name: (many[name] - few[name]) / (2 * size.profiled) for name in many}
            yield {
                "case": "vae", "batch_size": batch_size, "compiled": long.info["compiled"],
                "ops": long.info["num_ops"], "step_microseconds": 1e6 * step,
                "kernel_microseconds": per_step["kernel_microseconds"],
                "kernels": per_step["kernels"], "waits": per_step["waits"],
                "ratio": 1e6 * step / per_step["kernel_microseconds"],
                "capture_seconds": seconds_of(first, "capture"),
                "compile_seconds": seconds_of(first, "compilation"),
            }  # fmt: skip


def train(x: Tensor, batch_size: int, steps: int, device: torch.device, compile: bool) -> pyl.Fit:
    """Train the VAE of `benchmarks.svi` from its first weights."""
    torch.manual_seed(0)
    networks = VAE(x.shape[1], HIDDEN, LATENT)
    method = pyl.SVI(num_steps=steps, lr=LR, batch_size=batch_size, num_draws=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        return pyl.fit(
            networks.model, {"x": x}, method, guide=networks.guide, seed=0, device=device, compile=compile,
            progress=False,
        )  # fmt: skip


def seconds_of(fit: pyl.Fit, stage: str) -> float:
    seconds: float = fit.info["seconds"][stage]
    return seconds


def profiled(x: Tensor, batch_size: int, steps: int, device: torch.device, compile: bool) -> dict[str, float]:
    """Return time and number of the kernels of a whole fit, and how often the host waited for them."""
    on_device = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=activities, acc_events=True) as trace:
        train(x, batch_size, steps, device, compile)
    events = trace.key_averages()
    kernels = [event for event in events if (event.device_type.name == "CUDA") == on_device]
    times = [event.self_device_time_total if on_device else event.self_cpu_time_total for event in kernels]
    return {
        "kernel_microseconds": float(sum(times)),
        "kernels": float(sum(event.count for event in kernels)),
        "waits": float(sum(event.count for event in events if event.key in WAITS)),
    }


# The command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["mvn", "vae"], metavar="CASE", help="mvn, vae")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --device cpu tries the benchmark out")
    torch.set_num_threads(1)
    device = torch.device(options.device)
    size = FULL if device.type == "cuda" else SMALL
    around = (
        {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda} if size is FULL else {}
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for case in options.cases:
            for row in {"mvn": mvn_rows, "vae": vae_rows}[case](device, size):
                print({name: shown(value) for name, value in row.items()}, flush=True)
                if size is FULL:
                    append("gpu", [row | around])
                if row.get("ratio", 0.0) > BAR:
                    print(f"a step takes more than {BAR:.0f}x the time of its kernels", flush=True)


def shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shown(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
