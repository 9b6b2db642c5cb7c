"""Everything is computed where the data are; a tensor left behind on the CPU raises.

No GPU is needed: `tests.fake_device` provides a device that refuses to meet the CPU.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent import HMC, Fit, FitWarning, fit, infer_schema
from pyrolatent.capture.density import capture_density
from pyrolatent.models import BayesianMVN
from tests import user_models as um
from tests.fake_device import DEVICE, OnDevice, fake_device, moved
from tests.test_mvn import with_every_pattern

SHORT = HMC(num_chains=4, num_warmup=20, num_draws=10)


def bayesian_mvn() -> tuple[Callable[..., None], um.Data]:
    frame = with_every_pattern()
    pair = BayesianMVN(infer_schema(frame))
    return pair.model, pair.schema.encode(frame)


def written(model: um.UserModel) -> Callable[[], tuple[Callable[..., None], um.Data]]:
    return lambda: (model[0], model[1]())


MODELS = {name: written(model) for name, model in {**um.REFERENCES, **um.RUNG_BAR, "mvn": um.MVN}.items()}
MODELS |= {"dependent_support": written(um.GRADIENT_BAR["dependent_support"]), "BayesianMVN": bayesian_mvn}


@pytest.mark.parametrize("name", MODELS)
def test_density_and_gradient_are_computed_on_the_device(name: str) -> None:
    model, data = MODELS[name]()
    on_cpu = capture_density(model, data, seed=0)
    points = 2 * torch.rand(4, on_cpu.dim, dtype=torch.float64) - 1
    with fake_device():
        density = capture_density(model, moved(data), seed=0, device=DEVICE)
        assert density.rung == on_cpu.rung
        for flat in points.split(2):  # twice, so that nothing of the first can be baked into a graph
            found = density(flat.to(DEVICE))
            assert all(isinstance(part, OnDevice) for part in found)
            # The same operations in the same order on the same processor.
            torch.testing.assert_close(
                [part.cpu() for part in found], list(on_cpu(flat)), rtol=1e-13, atol=1e-13
            )
        sites = density.constrain(points.to(DEVICE))
        assert all(isinstance(site, OnDevice) for site in sites.values())


def quick(data: um.Data) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(um.eight_schools, data, SHORT, seed=0, progress=False)


def test_a_fit_runs_on_the_device_of_its_data() -> None:
    data = um.eight_schools_data()
    with fake_device():
        found = quick(moved(data))
    expected = quick(data)
    for name, draws in expected.samples.items():
        torch.testing.assert_close(found.samples[name], draws, rtol=1e-12, atol=1e-12)


OUTSIDE = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


class Shifted(dist.Normal):
    """A distribution that forgets the device."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - torch.ones(3, device="cpu"))


def made_on_the_cpu(mean: Tensor) -> Any:
    return dist.Normal(mean + torch.zeros(3, device="cpu"), 1.0)


def made_outside(mean: Tensor) -> Any:
    return dist.Normal(mean * OUTSIDE, 1.0)


def stacked_number(mean: Tensor) -> Any:
    return dist.Normal(torch.stack([mean, mean, torch.tensor(1.0, device="cpu")]), 1.0)


def made_in_a_distribution(mean: Tensor) -> Any:
    return Shifted(mean, torch.ones(3))


def made_in_a_transform(mean: Tensor) -> Any:
    shift = dist.transforms.AffineTransform(torch.zeros(3, device="cpu"), 1.0)
    return dist.TransformedDistribution(dist.Normal(mean, torch.ones(3)), [shift])


STRAYS = [made_on_the_cpu, made_outside, stacked_number, made_in_a_distribution, made_in_a_transform]


@pytest.mark.parametrize("make", STRAYS)
def test_a_stray_tensor_raises(make: Callable[[Tensor], Any]) -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", make(mean).to_event(1), obs=y)

    data = {"y": torch.ones(3, dtype=torch.float64)}
    capture_density(model, data, seed=0)  # on the CPU nobody sees it
    with fake_device(), pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        capture_density(model, moved(data), seed=0, device=DEVICE)


def test_reading_into_numpy_needs_a_move() -> None:
    with fake_device():
        x = torch.ones(2, device=DEVICE)
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            x.numpy()
        assert x.cpu().numpy().tolist() == x.tolist() == [1.0, 1.0]


def test_single_numbers_may_come_from_the_cpu() -> None:
    with fake_device():
        x = torch.arange(3.0, device=DEVICE) * torch.tensor(2.0)
    assert isinstance(x, OnDevice)
    assert x.tolist() == [0.0, 2.0, 4.0]
