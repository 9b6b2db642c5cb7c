"""From values of latent sites back to positions, and there again."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.unconstrain import unconstrain, unconstrain_with_jacobian


def correlation() -> None:
    pyro.sample("factor", dist.LKJCholesky(5, 1.0))


def simplex() -> None:
    pyro.sample("shares", dist.Dirichlet(torch.ones(4)).expand([3]).to_event(1))


def leftover() -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    b = pyro.sample("b", dist.Uniform(0.0, 1.0 - a))
    pyro.sample("c", dist.Uniform(a, a + b))


def ordered() -> None:
    pyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (4,)))
    pyro.factor("prior", torch.zeros(()))


def scales() -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1e6))
    spread = pyro.sample("spread", dist.HalfNormal(1.0).expand([2, 3]).to_event(2))
    pyro.deterministic("variance", spread**2 + mean)


def branching() -> None:
    sign = pyro.sample("sign", dist.Normal(0.0, 1.0))
    pyro.sample("part", dist.Uniform(-1.0, 0.0) if sign < 0 else dist.Uniform(0.0, 2.0))


MODELS: dict[str, Callable[[], None]] = {
    "LKJ": correlation,
    "simplex": simplex,
    "dependent": leftover,
    "ordered": ordered,
    "positive": scales,
    "eager": branching,
}


def captured(model: Callable[..., None]) -> LogDensity:
    return capture_density(model, {}, seed=0)


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str) -> None:
    density = captured(MODELS[name])
    assert density.rung == ("eager" if name == "eager" else "vmap")
    noise = torch.Generator().manual_seed(0)
    position = 2 * torch.randn(200, density.dim, generator=noise, dtype=torch.float64)
    samples = density.constrain(position)
    torch.testing.assert_close(unconstrain(density, samples), position, rtol=1e-10, atol=1e-10)


def test_the_jacobian_is_that_of_the_sites() -> None:
    density = captured(leftover)
    position = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)

    def sites(flat: Tensor) -> Tensor:
        a = flat[0].sigmoid()
        b = (1 - a) * flat[1].sigmoid()
        return torch.stack([a, b, a + b * flat[2].sigmoid()])

    expected = torch.linalg.slogdet(torch.autograd.functional.jacobian(sites, position[0]))[1]
    found, log_jacobian = unconstrain_with_jacobian(density, density.constrain(position))
    torch.testing.assert_close(found, position)
    torch.testing.assert_close(log_jacobian, expected[None])


def test_values_on_the_boundary_come_just_inside() -> None:
    density = captured(leftover)
    samples = {"a": torch.tensor([0.0, 0.5]), "b": torch.tensor([1.0, 0.5]), "c": torch.tensor([1.0, 0.5])}
    position = unconstrain(density, samples)
    assert position.isfinite().all()
    for name, values in density.constrain(position).items():
        torch.testing.assert_close(values, samples[name].double(), rtol=0, atol=1e-12)


def test_a_scale_of_zero_comes_just_inside() -> None:
    density = captured(scales)
    samples = {"mean": torch.tensor([3e5]), "spread": torch.ones(1, 2, 3)}
    samples["spread"][0, 1, 2] = 0.0
    back = density.constrain(unconstrain(density, samples))
    assert float(back["spread"][0, 1, 2]) == pytest.approx(0, abs=1e-300)
    assert float(back["mean"]) == 3e5


@pytest.mark.parametrize("b", [0.75, -0.1, float("nan")])
def test_values_outside_their_support_are_refused(b: float) -> None:
    samples = {"a": torch.full((3,), 0.5), "b": torch.tensor([0.2, b, 0.3]), "c": torch.full((3,), 0.55)}
    with pytest.raises(pyl.ModelError, match="site 'b', draw 1: a value lies outside the support"):
        unconstrain(captured(leftover), samples)


def test_single_precision_is_no_reason_to_refuse() -> None:
    density = captured(correlation)
    position = torch.randn(50, density.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = {"factor": density.constrain(position)["factor"].float()}
    torch.testing.assert_close(unconstrain(density, samples), position, rtol=1e-3, atol=1e-3)
