"""Densities of rows add up to the joint one, and kernels may take each row for a chain."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.row_density import RowDensity, by_rows
from pyrolatent.errors import ModelError
from pyrolatent.kernels.hmc import metric, start, transition
from pyrolatent.kernels.leapfrog import leapfrog_step

DOUBLE = torch.float64
NUM_ROWS = 5


def factor_model(x: Tensor) -> None:
    """Two latents of each row, one on the simplex, and a discrete one that is summed out."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        shares = pyro.sample("shares", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        arm = pyro.sample("arm", dist.Categorical(shares))
        means = torch.stack([z[..., 0], z[..., 1], z.sum(-1)], -1)
        centre = torch.stack([means[..., k] for k in range(3)])[arm, torch.arange(len(x))]
        pyro.sample("x", dist.Normal(centre, 0.5 + scale), obs=x)


def plain_model(x: Tensor, mask: Tensor) -> None:
    loadings = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.0, 0.0]])
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.3))
        cells = dist.Normal(z @ loadings, scale.unsqueeze(-1)).mask(mask).to_event(1)
        pyro.sample("x", cells, obs=x)


def data() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_ROWS, 3, generator=random, dtype=DOUBLE)
    mask = torch.rand(NUM_ROWS, 3, generator=random) < 0.7
    return {"x": torch.where(mask, x, 0.0), "mask": mask}


def densities() -> tuple[LogDensity, RowDensity]:
    joint = capture_density(plain_model, data(), seed=0)
    return joint, by_rows(joint)


def flat_of(rows: RowDensity, position: Tensor) -> Tensor:
    """The joint density's positions (B, N D) of positions (B, N, D)."""
    return torch.cat([part.flatten(1) for part in rows.sites.layout.unpack(position).values()], 1)


def test_rows_add_up_to_the_joint_density() -> None:
    joint, rows = densities()
    position = torch.randn(4, NUM_ROWS, rows.dim, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    values, gradients = rows(position)
    total, gradient = joint(flat_of(rows, position))
    torch.testing.assert_close(values.sum(1), total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flat_of(rows, gradients), gradient, rtol=1e-11, atol=1e-11)


def test_a_row_alone_has_the_density_that_it_has_among_others() -> None:
    _, rows = densities()
    position = torch.randn(1, NUM_ROWS, rows.dim, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    values, _ = rows(position)
    for row in range(NUM_ROWS):
        only = {name: value[row : row + 1] for name, value in data().items()}
        alone = by_rows(capture_density(plain_model, only, seed=0))
        torch.testing.assert_close(alone(position[:, row : row + 1])[0][0, 0], values[0, row])


def test_kernels_sample_every_row_by_itself() -> None:
    """Each row's posterior is normal and known; every row of every particle is a chain."""
    y = torch.tensor([-2.0, 0.0, 3.0], dtype=DOUBLE)

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    rows = by_rows(capture_density(model, {"y": y}, seed=0))
    random = torch.Generator().manual_seed(3)
    chains = 40 * len(y)
    step, unit = leapfrog_step(rows.of_chains), metric(torch.ones(1, dtype=DOUBLE))
    state = start(rows.of_chains, torch.randn(chains, 1, generator=random, dtype=DOUBLE))
    draws, rates = [], []
    for _ in range(60):
        noise = torch.randn(chains, 1, generator=random, dtype=DOUBLE)
        uniform = torch.rand(chains, generator=random, dtype=DOUBLE)
        state, info = transition(step, state, unit, torch.tensor(0.5), 2, noise, uniform)
        draws.append(state.position.reshape(40, len(y)))
        rates.append(info.acceptance_rate)
    kept = torch.stack(draws[10:]).flatten(0, 1)
    sd = math.sqrt(0.2)
    # 2,000 draws of each row; at most four transitions make an independent one
    torch.testing.assert_close(kept.mean(0), 0.8 * y, rtol=0, atol=4 * sd / math.sqrt(2_000 / 4))
    torch.testing.assert_close(kept.std(0), torch.full_like(y, sd), rtol=0.1, atol=0)
    assert torch.stack(rates).std(1).mean() > 0, "rows are accepted one by one"


def test_discrete_sites_of_rows_are_summed_out() -> None:
    x = torch.linspace(-1.0, 1.0, NUM_ROWS, dtype=DOUBLE)
    joint = capture_density(factor_model, {"x": x}, seed=0)
    rows = by_rows(joint)
    position = torch.randn(2, NUM_ROWS, rows.dim, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    total, gradient = joint(flat_of(rows, position))
    values, gradients = rows(position)
    torch.testing.assert_close(values.sum(1), total, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(flat_of(rows, gradients), gradient, rtol=1e-10, atol=1e-10)


def test_sites_come_back_in_their_shapes() -> None:
    _, rows = densities()
    position = torch.zeros(3, NUM_ROWS, rows.dim, dtype=DOUBLE)
    sites = rows.constrain(position)
    assert sites["z"].shape == (3, NUM_ROWS, 2)
    torch.testing.assert_close(sites["scale"], torch.ones(3, NUM_ROWS, dtype=DOUBLE))


def test_code_that_cannot_be_captured_gives_the_same_numbers() -> None:
    def branching(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            float(z.detach().sum())  # read into Python
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    y = torch.linspace(-1, 1, 3, dtype=DOUBLE)
    joint = capture_density(branching, {"y": y}, seed=0)
    assert joint.rung == "eager"
    z = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    values, gradients = by_rows(joint)(z)
    torch.testing.assert_close(gradients[..., 0], y - 2 * z[..., 0])
    torch.testing.assert_close(values.sum(1), joint(z[..., 0])[0])


def test_what_rows_share_is_refused() -> None:
    def shared(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    density = capture_density(shared, {"y": torch.zeros(3, dtype=DOUBLE)}, seed=0)
    with pytest.raises(ModelError, match=r"sites \['mean'\].*every site belongs to a row"):
        by_rows(density)


def test_rows_that_read_each_other_are_refused() -> None:
    def coupled(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z - z.mean(), 1.0), obs=y)

    density = capture_density(coupled, {"y": torch.zeros(3, dtype=DOUBLE)}, seed=0)
    with pytest.raises(ModelError, match="rows of the model depend on each other"):
        by_rows(density)
