"""The cases as plain Pyro models, for this package and for Pyro's own NUTS alike."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.peers.worker import Data
from tests.user_models import eight_schools, logistic, mvn


def radon(y: Tensor, floor: Tensor, uranium: Tensor, group: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    group_scale = pyro.sample("group_scale", dist.HalfNormal(1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("groups", len(uranium)):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        intercept = pyro.deterministic("intercept", mean + slope[0] * uranium + group_scale * shift)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(intercept[group] + slope[1] * floor, scale), obs=y)


MODELS: dict[str, Callable[..., None]] = {
    "mvn": mvn, "eight schools": eight_schools, "radon": radon, "logistic": logistic,
}  # fmt: skip


def tensors(data: Data) -> dict[str, Any]:
    return {name: torch.as_tensor(values) for name, values in data.items()}
