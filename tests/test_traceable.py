"""Expressions that stand in for Pyro's and torch's own while a model runs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import bernoulli
from torch.func import grad
from torch.nn import functional

from pyrolatent.capture.compile import capture
from pyrolatent.capture.density import capture_density
from pyrolatent.capture.traceable import binary_cross_entropy_with_logits

EXTREME = torch.tensor([-800.0, -40.0, -1e-3, 0.0, 1e-3, 40.0, 800.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_cross_entropy_is_that_of_torch(dtype: torch.dtype, value: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.cat([EXTREME, 10 * torch.randn(100, generator=random)]).to(dtype)
    values = torch.full_like(logits, value)

    def own(at: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(at, values).sum()

    def of_torch(at: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(at, values, reduction="sum")

    found = binary_cross_entropy_with_logits(logits, values)
    expected = functional.binary_cross_entropy_with_logits(logits, values, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad(own)(logits), grad(of_torch)(logits))


def test_bernoulli_takes_it_while_a_model_runs_and_not_after() -> None:
    def coins(y: Tensor) -> None:
        logit = pyro.sample("logit", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=logit), obs=y)

    y = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    density, point = capture_density(coins, {"y": y}, seed=0), torch.tensor([[0.7]], dtype=torch.float64)
    with density.context(), torch.no_grad():
        graph = capture(density.batched.function, point)
        (value,), _ = graph(point)
    assert torch.ops.aten.log_sigmoid_forward.default in {node.target for node in graph.module.graph.nodes}
    logit = point[0, 0]
    expected = dist.Normal(0.0, 1.0).log_prob(logit) + dist.Bernoulli(logits=logit).log_prob(y).sum()
    torch.testing.assert_close(value, expected)
    assert bernoulli.binary_cross_entropy_with_logits is functional.binary_cross_entropy_with_logits
