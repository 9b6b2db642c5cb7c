"""The divergence taken apart: its parts add up, and are those of brute force."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.bounds import run_pair
from pyrolatent.infer.rows import scaled
from pyrolatent.pair import FunctionPair
from pyrolatent.total_correlation import parts, stratified_log_weights, tc_elbo

ROWS, LATENT = 12, 3


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., 0] + u, 0.5), obs=x)


def guide(x: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor([0.5, -1.0, 2.0]))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, None] * slope, 0.4 + 0.1 * x[:, None].abs()).to_event(1))
        pyro.sample("u", dist.Normal(0.3 * x, 0.7))


PAIR = FunctionPair(model, guide)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    with pyro.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def rows(seed: int = 0) -> dict[str, Any]:
    return {"x": torch.randn(ROWS, generator=torch.Generator().manual_seed(seed))}


def loss(objective: Any, pair: FunctionPair = PAIR, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return objective(pair, rows(), torch.no_grad(), torch.zeros(()))


def test_with_all_weights_one_it_is_the_elbo() -> None:
    torch.testing.assert_close(loss(tc_elbo(1.0)), loss(pyl.elbo()))
    batch = scaled(PAIR, 5.0)
    torch.testing.assert_close(loss(tc_elbo(1.0), batch), loss(pyl.elbo(), batch))


def test_with_all_weights_equal_it_is_the_beta_elbo() -> None:
    torch.testing.assert_close(loss(tc_elbo(3.0, 3.0, 3.0)), loss(pyl.elbo(3.0)))


def test_of_all_rows_the_parts_are_those_of_loops() -> None:
    torch.manual_seed(1)
    run, x, slope = run_pair(PAIR, rows()), rows()["x"], torch.tensor([0.5, -1.0, 2.0])
    z = torch.cat([run.values["z"], run.values["u"][:, None]], 1)

    def log_q(value: Tensor, row: int) -> Tensor:
        """log q(z_j | x_row) of each component."""
        location = torch.cat([x[row] * slope, 0.3 * x[row : row + 1]])
        scale = torch.cat([(0.4 + 0.1 * x[row].abs()).expand(LATENT), torch.tensor([0.7])])
        return dist.Normal(location, scale).log_prob(value)

    conditional, aggregate, components = 0.0, 0.0, 0.0
    for i in range(ROWS):
        densities = torch.stack([log_q(z[i], n) for n in range(ROWS)])
        conditional += densities[i].sum()
        aggregate += densities.sum(1).exp().mean().log()
        components += densities.exp().mean(0).log().sum()
    for found, expected in zip(parts(run), (conditional, aggregate, components), strict=True):
        torch.testing.assert_close(found, torch.as_tensor(expected))


def test_a_batch_estimates_the_density_of_all_rows_without_bias() -> None:
    """Of N rows, batches of B that hold row 0: the mean of the weighted sums is q(z_0)."""
    num_rows, batch_size, rounds = 40, 5, 20_000
    random = torch.Generator().manual_seed(0)
    densities = torch.rand(num_rows, generator=random) ** 4  # q(z_0 | x_n)
    others = torch.rand(rounds, num_rows - 1, generator=random).argsort(1)[:, : batch_size - 1] + 1
    in_batch = torch.cat([densities[:1].expand(rounds, 1), densities[others]], 1)
    estimates = (in_batch * stratified_log_weights(batch_size, num_rows)[0].exp()).sum(1)
    error = float(estimates.std() / rounds**0.5)
    assert abs(float(estimates.mean() - densities.mean())) < 4 * error


def test_every_row_has_its_own_weight_on_the_diagonal() -> None:
    """The public code puts 1/N into the first column, whatever the row."""
    weights = stratified_log_weights(4, 100.0).exp()
    torch.testing.assert_close(weights.diagonal(), torch.full((4,), 0.01))
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert float(weights[1, 0]) == pytest.approx(99 / 300)


def test_independent_latents_have_next_to_no_total_correlation() -> None:
    """5 latents that follow 5 independent inputs; the logarithm of an estimate is biased, not by much."""

    def encoder(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.5).to_event(1))

    def decoder(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).to_event(1))

    x = torch.randn(2_000, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    found = []
    for batch in x.split(100):
        _, aggregate, components = parts(run_pair(scaled(FunctionPair(decoder, encoder), 20.0), {"x": batch}))
        found.append(float(aggregate - components) / 2_000)
    assert abs(sum(found) / len(found)) < 1.0  # minibatch weights 1/(N B) alone would give 30


def test_it_trains_and_lowers_the_total_correlation() -> None:
    method = pyl.SVI(tc_elbo(6.0), num_steps=30, batch_size=6)
    fit = pyl.fit(model, rows(), method, guide=guide, seed=0, progress=False, compile=False)
    assert math.isfinite(float(fit.losses["train"].sum()))
    assert fit.info["rung"] == "vmap"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((-1.0,), "beta must be a number from 0 up"),
        ((1.0, math.inf), "alpha must be"),
        ((1.0, 1.0, -2.0), "gamma"),
    ],
)
def test_wrong_weights(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(pyl.ArgumentError, match=message):
        tc_elbo(*weights)


def test_dependent_latents_are_refused_with_their_site() -> None:
    def dependent(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(torch.zeros(LATENT), torch.eye(LATENT)))
            pyro.sample("u", dist.Normal(0.0, 1.0))

    with pytest.raises(pyl.ModelError, match=r"site 'z': .*MultivariateNormal has no density of single"):
        tc_elbo(2.0).check(FunctionPair(model, dependent), rows())


def test_a_single_row_is_refused() -> None:
    with pytest.raises(pyl.ModelError, match="needs several rows in a batch: got one"):
        tc_elbo(2.0).check(PAIR, {"x": torch.zeros(1)})


def test_latents_that_depend_on_drawn_ones_are_refused() -> None:
    frame = pyl.datasets.job_satisfaction(200, seed=0)
    method = pyl.SVI(num_steps=5, batch_size=50)
    first = pyl.fit(pyl.models.VAE(pyl.infer_schema(frame), 2), frame, method, seed=0, progress=False)
    second = pyl.models.MultiStageVAE(first)
    with pytest.raises(pyl.ModelError, match="site 'z': what the guide draws depends on what it drew before"):
        pyl.fit(second, frame, pyl.SVI(pyl.tc_elbo(2.0), num_steps=5), seed=0, progress=False)
