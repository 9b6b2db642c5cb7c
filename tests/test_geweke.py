"""Geweke's joint test of each kernel with its tuning frozen (2004, "Getting it right").

Draw parameters from the prior and data given them, then alternate: the kernel moves the parameters
given the data, and fresh data are drawn given the parameters.  A kernel that leaves the posterior as
it is leaves the prior as it is, however often; the least bias piles up.  Thousands of such chains run
in one batch, each with data of its own, and being independent they have uniform ranks among
independent draws of the joint distribution.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.kernels import hmc, nuts
from pyrolatent.kernels.hmc import Metric, metric
from pyrolatent.kernels.leapfrog import Density, leapfrog_step
from tests.calibration import BROKEN, LEVEL, joint_p_value

CHAINS, ROUNDS, MOVES, COMPARED = 2_000, 10, 2, 99
STEP_SIZE = torch.tensor(1.0, dtype=torch.float64)
MAX_TREE_DEPTH = 4

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Model:
    """Normal priors of mean 0 and sd `scale (D,)`; data and their log-likelihood given `(..., D)`.

    In a metric of sd `spread (D,)` steps of size 1 are accepted two to three times in four; one entry is
    too small, so that paths have to be long.
    """

    scale: Tensor
    spread: Tensor
    simulate: Callable[[Tensor, torch.Generator], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]

    def prior(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        return self.scale * normals((*shape, len(self.scale)), random)

    def density(self, data: Tensor) -> Density:
        """The posteriors of chains with `data (B, N)`, each its own."""

        def log_joint(theta: Tensor, data: Tensor) -> Tensor:
            return self.log_likelihood(theta, data) - 0.5 * ((theta / self.scale) ** 2).sum(-1)

        def density(position: Tensor) -> tuple[Tensor, Tensor]:
            slope, value = torch.func.vmap(torch.func.grad_and_value(log_joint))(position, data)
            return value, slope

        return density

    def quantities(self, theta: Tensor, data: Tensor) -> Tensor:
        """What is ranked `(..., 2 D + 1)`: each parameter, its square, the log-likelihood."""
        return torch.cat([theta, theta**2, self.log_likelihood(theta, data)[..., None]], -1)


def normals(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


def uniforms(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=random, dtype=torch.float64)


def location_and_scale(num_rows: int) -> Model:
    """y ~ Normal(theta_0, exp(theta_1)): a funnel of few data."""

    def simulate(theta: Tensor, random: torch.Generator) -> Tensor:
        return theta[..., :1] + theta[..., 1:].exp() * normals((*theta.shape[:-1], num_rows), random)

    def log_likelihood(theta: Tensor, y: Tensor) -> Tensor:
        return torch.distributions.Normal(theta[..., :1], theta[..., 1:].exp(), False).log_prob(y).sum(-1)

    scale, spread = torch.tensor([[1.0, 0.6], [0.2, 0.4]], dtype=torch.float64)
    return Model(scale, spread, simulate, log_likelihood)


def logistic(num_rows: int) -> Model:
    """y ~ Bernoulli(sigmoid(x theta)) with a weight for a constant and for two columns."""
    columns = 2 * normals((num_rows, 2), torch.Generator().manual_seed(7))
    x = torch.cat([torch.ones(num_rows, 1), columns], 1)

    def simulate(theta: Tensor, random: torch.Generator) -> Tensor:
        chance = (theta @ x.T).sigmoid()
        return (uniforms(tuple(chance.shape), random) < chance).double()

    def log_likelihood(theta: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid((2 * y - 1) * (theta @ x.T)).sum(-1)

    scale, spread = torch.tensor([[1.0, 1.0, 0.75], [0.9, 0.2, 0.65]], dtype=torch.float64)
    return Model(scale, spread, simulate, log_likelihood)


MODELS = {"location and scale": location_and_scale(4), "logistic": logistic(6)}


def frozen(model: Model, dense: bool) -> Metric:
    """A metric of the right size whose correlations are nobody's."""
    correlation = torch.full((len(model.spread),) * 2, 0.4, dtype=torch.float64).fill_diagonal_(1)
    return metric(model.spread[:, None] * correlation * model.spread if dense else model.spread**2)


def true_noise(noise: Tensor, _: Metric) -> Tensor:
    return noise


def move_by_hmc(
    density: Density,
    position: Tensor,
    mass: Metric,
    random: torch.Generator,
    share: float = 1.0,
    refresh: Callable[[Tensor, Metric], Tensor] = true_noise,
) -> Tensor:
    """Move all chains by transitions of jittered length.

    Two defects: uniform numbers that are but a `share` of what they should be, 0 to accept always, and
    noise of momenta that is not standard normal after `refresh`.
    """
    step, state = leapfrog_step(density), hmc.start(density, position)
    for _ in range(MOVES):
        num_steps = int(torch.randint(1, 9, (), generator=random))
        noise = refresh(normals(tuple(position.shape), random), mass)
        uniform = share * uniforms(position.shape[:1], random)
        state, _ = hmc.transition(step, state, mass, STEP_SIZE, num_steps, noise, uniform)
    return state.position


def move_by_nuts(
    density: Density,
    position: Tensor,
    mass: Metric,
    random: torch.Generator,
    share: float = 1.0,
    refresh: Callable[[Tensor, Metric], Tensor] = true_noise,
) -> Tensor:
    """Move all chains by trees; a `share` of 0 takes every new leaf and every new subtree."""
    grow = nuts.leaf_step(density)

    def uniform() -> Tensor:
        return uniforms(position.shape[:1], random)

    def merge(*tensors: Tensor) -> tuple[Tensor, ...]:
        return nuts.merge(*tensors[:-1], share * tensors[-1])

    def leaf(*tensors: Tensor) -> tuple[Tensor, ...]:
        *others, chance, is_pair = tensors
        return grow(*others, share * chance, is_pair)

    state = hmc.start(density, position)
    for _ in range(MOVES):
        noise = refresh(normals(tuple(position.shape), random), mass)
        state, _ = nuts.transition(leaf, state, mass, STEP_SIZE, MAX_TREE_DEPTH, noise, uniform, merge)
    return state.position


KERNELS: dict[str, Kernel] = {"hmc": move_by_hmc, "nuts": move_by_nuts}
DEFECTS: dict[str, dict[str, Any]] = {
    "all accepted": {"share": 0.0},
    "momenta 20 % too wide": {"refresh": lambda noise, _: 1.2 * noise},
    "momenta of the covariance": {"refresh": lambda noise, mass: noise @ mass.factor.mT @ mass.factor},
}


def alternate(
    model: Model, kernel: Kernel, mass: Metric, chains: int, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters before, and parameters and data after all rounds."""
    theta = begin = model.prior((chains,), random)
    for _ in range(ROUNDS):
        data = model.simulate(theta, random)
        theta = kernel(model.density(data), theta, mass, random)
    return begin, theta, model.simulate(theta, random)


def ranks(model: Model, theta: Tensor, data: Tensor, random: torch.Generator) -> NDArray[np.int64]:
    """Return the ranks `(B, Q)` of each quantity among independent draws of the joint distribution."""
    prior = model.prior((COMPARED, len(theta)), random)
    compared = model.quantities(prior, model.simulate(prior, random))
    return (compared < model.quantities(theta, data)).sum(0).numpy()


@pytest.mark.parametrize("chains", [CHAINS, pytest.param(10 * CHAINS, marks=pytest.mark.verify)])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "diagonal"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_kernel_leaves_the_joint_distribution_as_it_is(
    kernel: Kernel, model: Model, dense: bool, chains: int
) -> None:
    random = torch.Generator().manual_seed(2)
    begin, theta, data = alternate(model, kernel, frozen(model, dense), chains, random)
    assert joint_p_value(ranks(model, theta, data, random), COMPARED) > 1 - LEVEL
    # A kernel that stays where it is would pass: chains must have lost half of where they began.
    kept = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(begin.T, theta.T, strict=True)]
    assert max(map(abs, kept)) < 0.5


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_broken_kernel_does_not(kernel: Kernel, defect: dict[str, Any], model: Model) -> None:
    random = torch.Generator().manual_seed(2)
    broken = functools.partial(kernel, **defect)
    _, theta, data = alternate(model, broken, frozen(model, dense=True), CHAINS, random)
    assert joint_p_value(ranks(model, theta, data, random), COMPARED) < BROKEN


def test_trees_checked_as_a_whole_only_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with a subtree that turns would not be grown from each of its leaves."""
    monkeypatch.setattr(nuts, "prune", lambda subtree, *_: subtree)
    random, model = torch.Generator().manual_seed(2), MODELS["logistic"]
    _, theta, data = alternate(model, move_by_nuts, frozen(model, dense=True), CHAINS, random)
    assert joint_p_value(ranks(model, theta, data, random), COMPARED) < BROKEN
