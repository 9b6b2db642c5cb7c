"""Up to which dimension does a dense metric pay?

Run as `python -m benchmarks.metrics`.  Correlated posteriors of growing dimension, fitted with the
dense and with the diagonal metric, all else as `HMC()` has it.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyrolatent as pyl
from benchmarks.record import append
from tests.user_models import Data

DIMENSIONS = (50, 100, 200, 500, 1_000)
HOLDERS = ("pyrolatent.infer.tuning", "pyrolatent.infer.start")
MANY = 1 << 30


def walk(dim: int) -> None:
    """A chain of neighbours with correlation 0.9: a gradient of O(dim), all directions matter."""
    with pyro.plate("time", dim):
        x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
    pyro.factor("first", dist.Normal(0.0, 1.0).log_prob(x[0]))
    pyro.factor("next", dist.Normal(0.9 * x[:-1], 0.19**0.5).log_prob(x[1:]).sum())


def walk_data(dim: int) -> Data:
    return {"dim": dim}


def regression(x: Tensor, y: Tensor) -> None:
    """Logistic regression on columns with a common factor: a gradient of O(rows x dim)."""
    slopes = pyro.sample("slopes", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ slopes), obs=y)


def regression_data(dim: int) -> Data:
    noise = torch.Generator().manual_seed(dim)
    common = torch.randn(4 * dim, 1, generator=noise, dtype=torch.float64)
    x = 2 * common + torch.randn(4 * dim, dim, generator=noise, dtype=torch.float64)
    slopes = torch.randn(dim, generator=noise, dtype=torch.float64) / dim**0.5
    return {"x": x, "y": torch.bernoulli(torch.sigmoid(x @ slopes), generator=noise)}


TARGETS: dict[str, tuple[Callable[..., None], Callable[[int], Data]]] = {
    "walk": (walk, walk_data),
    "regression": (regression, regression_data),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--dimensions", type=int, nargs="*", default=DIMENSIONS)
    parser.add_argument("--metrics", nargs="*", default=["dense", "diagonal"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.targets:
        for dim in options.dimensions:
            for metric in options.metrics:
                row = measured(name, dim, metric)
                append("metrics", [row])
                print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)


def measured(name: str, dim: int, metric: str) -> dict[str, Any]:
    """Return CPU seconds of all and of sampling, R-hat, ESS and leapfrog steps of one fit."""
    model, make_data = TARGETS[name]
    data, largest = make_data(dim), MANY if metric == "dense" else 0
    with ExitStack() as patches:
        for holder in HOLDERS:
            patches.enter_context(patch(f"{holder}.MAX_DENSE", largest))
        begin = time.process_time()
        fit = pyl.fit(model, data, pyl.HMC(), seed=1, progress=False, compile=False)
        seconds = time.process_time() - begin
    (site,) = fit.sites.latents
    ess = float(fit.diagnostics[site]["ess"].min())
    return {
        "target": name,
        "dim": dim,
        "metric": metric,
        "cpu_seconds": seconds,
        "stages": fit.info["seconds"],
        "rhat": float(fit.diagnostics[site]["rhat"].max()),
        "ess": ess,
        "ess_per_cpu_second": ess / seconds,
        "steps_per_draw": float(fit.sample_stats["n_steps"].double().mean()),
        "path": fit.info["path_length"],
    }


if __name__ == "__main__":
    main()
