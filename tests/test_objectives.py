"""Bounds against Pyro's own, against hand-written losses, and against log p(x) where it is known."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.bounds import check_guide
from pyrolatent.capture.context import model_context
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.objectives import Objective, elbo, iwae, linear
from pyrolatent.pair import FunctionPair, Pair, as_pair
from pyrolatent.seeds import seeded

Data = dict[str, Any]
Program = Callable[..., Any]

FREE = contextlib.nullcontext()
START = torch.zeros((), dtype=torch.float64)
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with model_context(DOUBLE, torch.device("cpu"), validate=True):
        yield


def evaluate(objective: Objective, pair: Pair, data: Data, seed: int = 1, step: float = 0.0) -> Tensor:
    torch.manual_seed(seed)
    return objective(pair, data, FREE, START + step)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# Pyro's own ELBO


def hierarchy(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
    pyro.deterministic("sum", mean + scale)
    pyro.factor("regularised", -shares[0] * mean**2)
    with pyro.plate("data", len(y)):
        effect = pyro.sample("effect", dist.Normal(mean, scale))
        with pyro.poutine.mask(mask=y > -1), pyro.poutine.scale(scale=1.7):
            pyro.sample("y", dist.Normal(effect, 0.5), obs=y)


def hierarchy_guide(y: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.3))
    spread = pyro.param("spread", torch.tensor(0.4), constraint=constraints.positive)
    weights = pyro.param("weights", torch.tensor([1.0, 2.0, 3.0]), constraint=constraints.positive)
    mean = pyro.sample("mean", dist.Normal(loc, spread))
    log_scale = pyro.sample("log_scale", dist.Normal(0.1 * mean, 0.2), infer={"is_auxiliary": True})
    pyro.sample("scale", dist.Delta(log_scale.exp(), log_density=-log_scale))
    pyro.sample("shares", dist.Dirichlet(weights))
    with pyro.plate("data", len(y)):
        pyro.sample("effect", dist.Normal(y * loc, spread))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))

    def forward(self, x: Tensor) -> dist.Distribution:
        loc, log_scale = self.layers(x).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)


def vae() -> tuple[Program, Program]:
    """A decoder and an amortised guide with two latents a row, for x (N, 4) with a mask of cells."""
    torch.manual_seed(5)
    encoder, decoder = Encoder(), nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4))

    def model(x: Tensor, mask: Tensor) -> None:
        pyro.module("decoder", decoder)
        noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), noise).mask(mask).to_event(1), obs=x)

    def guide(x: Tensor, mask: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", encoder(x * mask))

    return model, guide


def vae_data(rows: int = 6) -> Data:
    mask = normal(rows, 4, seed=3) > -0.7
    return {"x": normal(rows, 4, seed=2) * mask, "mask": mask}


def pairs() -> dict[str, tuple[Program, Program, Data]]:
    y = {"y": normal(7, seed=1)}
    guides = (AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoDelta)
    autoguides = {made.__name__: (hierarchy, made(hierarchy), y) for made in guides}
    return autoguides | {"by hand": (hierarchy, hierarchy_guide, y), "vae": (*vae(), vae_data())}


PAIRS = (
    "AutoNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoDelta",
    "by hand",
    "vae",
)


def leaves() -> list[Tensor]:
    return list(pyro.get_param_store().get_state()["params"].values())


@pytest.mark.parametrize("name", PAIRS)
def test_elbo_is_that_of_pyro_with_its_gradient(name: str) -> None:
    model, guide, data = pairs()[name]
    Trace_ELBO().loss(model, guide, **data)  # makes the parameters
    torch.manual_seed(1)
    expected = Trace_ELBO().differentiable_loss(model, guide, **data)
    expected_gradient = torch.autograd.grad(expected, leaves())
    loss = evaluate(elbo(), as_pair(model, guide), data)
    gradient = torch.autograd.grad(loss, leaves())
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)
    assert len(gradient) >= 2


def test_a_plate_that_subsamples_has_the_same_rows_in_guide_and_model() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y), subsample_size=3) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    def guide(y: Tensor) -> None:
        with pyro.plate("data", len(y), subsample_size=3) as index:
            pyro.sample("z", dist.Normal(y[index] / 2, 0.8))

    data = {"y": normal(8, seed=1)}
    torch.manual_seed(1)
    expected = Trace_ELBO().differentiable_loss(model, guide, **data)
    torch.testing.assert_close(evaluate(elbo(), as_pair(model, guide), data), expected)


def test_noise_is_drawn_inside_the_given_context() -> None:
    pair, data = as_pair(*vae()), vae_data()
    before = torch.random.get_rng_state()
    losses = [elbo()(pair, data, seeded(3, "objective"), START) for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0] != elbo()(pair, data, seeded(4, "objective"), START)
    assert torch.equal(torch.random.get_rng_state(), before)


# A linear decoder, x = mean + loading z + noise, is probabilistic PCA: all is known

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=DOUBLE)
NOISE = 0.6


def linear_decoder(loading: Tensor, widening: float = 1.0) -> Pair:
    """Rows x (N, 3) of probabilistic PCA; the guide is the exact posterior, its scale `widening` times.

    With M = I + W'W / s^2 the posterior of z is normal with covariance M^-1 and mean
    M^-1 W'(x - mean) / s^2 (Tipping and Bishop, 1999, eq. 8).
    """
    precision = torch.eye(loading.shape[1], dtype=DOUBLE) + loading.T @ loading / NOISE**2
    covariance = torch.linalg.inv(precision)
    scale_tril = widening * torch.linalg.cholesky(covariance)

    def model(x: Tensor) -> None:
        pyro.deterministic("loading", loading)  # belongs to no row, and counts for none
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(loading.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(MEAN + z @ loading.T, NOISE).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = (x - MEAN) @ loading @ covariance / NOISE**2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale_tril))

    return as_pair(model, guide)


def log_evidence(x: Tensor, loading: Tensor) -> Tensor:
    covariance = loading @ loading.T + NOISE**2 * torch.eye(3, dtype=DOUBLE)
    return torch.distributions.MultivariateNormal(MEAN, covariance).log_prob(x)


PLANE = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.3, 0.5]], dtype=DOUBLE)
LINE = PLANE[:, :1]
WIDENING = 1.8


@pytest.mark.parametrize("objective", [elbo(), iwae(1), iwae(2), iwae(7)], ids=str)
def test_with_the_exact_posterior_the_bound_is_the_evidence(objective: Objective) -> None:
    x = normal(5, 3, seed=4)
    loss = evaluate(objective, linear_decoder(PLANE), {"x": x})
    torch.testing.assert_close(loss, -log_evidence(x, PLANE).sum(), rtol=1e-12, atol=1e-12)


def moments_by_quadrature(x: Tensor, num_particles: int) -> tuple[float, float]:
    """Mean and standard deviation of one row's bound under the widened guide, on a grid of its noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eps, mass = torch.as_tensor(nodes), torch.as_tensor(weights / math.sqrt(2 * math.pi))
    precision = 1 + float((LINE.T @ LINE) / NOISE**2)
    scale = WIDENING / math.sqrt(precision)
    z = float((x - MEAN) @ LINE) / NOISE**2 / precision + scale * eps
    standard = torch.distributions.Normal(0.0, 1.0)
    log_likelihood = torch.distributions.Normal(MEAN + z[:, None] * LINE.T, NOISE).log_prob(x).sum(-1)
    log_weight = log_likelihood + standard.log_prob(z) - standard.log_prob(eps) + math.log(scale)
    grids = torch.meshgrid([log_weight] * num_particles, indexing="ij")
    bound = torch.logsumexp(torch.stack(grids), 0) - math.log(num_particles)
    probability = torch.stack(torch.meshgrid([mass] * num_particles, indexing="ij")).prod(0)
    mean = float((probability * bound).sum())
    return mean, math.sqrt(float((probability * (bound - mean) ** 2).sum()))


@pytest.mark.parametrize("num_particles", [1, 2, 3])
def test_with_a_widened_guide_the_bound_is_that_of_quadrature(num_particles: int) -> None:
    row, copies = normal(3, seed=6), 40_000
    expected, spread = moments_by_quadrature(row, num_particles)
    loss = evaluate(iwae(num_particles), linear_decoder(LINE, WIDENING), {"x": row.expand(copies, 3)})
    assert abs(float(-loss) / copies - expected) < 4 * spread / math.sqrt(copies)
    if num_particles == 1:  # the gap of the ELBO is the divergence of two normals with one mean
        gap = -math.log(WIDENING) + (WIDENING**2 - 1) / 2
        assert expected == pytest.approx(float(log_evidence(row, LINE)) - gap, abs=1e-9)


def test_the_bound_grows_with_the_number_of_particles() -> None:
    """Steps of the mean are .2 nats and more; the standard error of each mean is below .01."""
    row, copies = normal(3, seed=6), 20_000
    pair, data = linear_decoder(LINE, WIDENING), {"x": row.expand(copies, 3)}
    bounds = [-float(evaluate(iwae(k), pair, data)) / copies for k in (1, 2, 5, 25)]
    assert bounds == sorted(bounds)
    assert 0 < float(log_evidence(row, LINE)) - bounds[-1] < 0.05 < bounds[-1] - bounds[0]


def test_one_particle_is_the_elbo() -> None:
    pair, data = as_pair(*vae()), vae_data()
    torch.testing.assert_close(
        evaluate(iwae(1), pair, data), evaluate(elbo(), pair, data), rtol=1e-13, atol=1e-13
    )


# Rows


def scaled(pair: Pair, scale: float) -> Pair:
    """The pair with its rows counted `scale` times; all its sites are rows."""
    assert pair.guide is not None
    return FunctionPair(*(pyro.poutine.scale(program, scale=scale) for program in (pair.model, pair.guide)))


def wrapped_batches(rows: int, size: int) -> list[Tensor]:
    """Batches of one size that wrap around, until each row has had its turn equally often."""
    return list((torch.arange(math.lcm(rows, size)) % rows).split(size))


@pytest.mark.parametrize("objective", [elbo(), iwae(4)], ids=str)
def test_batches_are_worth_all_rows_exactly_where_nothing_is_random(objective: Objective) -> None:
    x = normal(10, 3, seed=7)
    batches = wrapped_batches(10, 4)
    pair = scaled(linear_decoder(PLANE), 10 / 4)
    losses = torch.stack([evaluate(objective, pair, {"x": x[index]}) for index in batches])
    assert len(batches) == 5
    torch.testing.assert_close(losses.mean(), -log_evidence(x, PLANE).sum(), rtol=1e-12, atol=1e-12)


def test_batches_are_worth_all_rows_in_expectation() -> None:
    """N/B = 2.5 inside the logarithm, as in Pyro's RenyiELBO, would be off by hundreds of nats."""
    rows, size, num_particles = 3_000, 1_200, 3
    x = normal(rows, 3, seed=8)
    pair = linear_decoder(LINE, WIDENING)
    moments = [moments_by_quadrature(row, num_particles) for row in x[:50]]
    spread = max(sd for _, sd in moments)
    batches = [
        evaluate(iwae(num_particles), scaled(pair, rows / size), {"x": x[index]}, seed=number)
        for number, index in enumerate(wrapped_batches(rows, size))
    ]
    full = evaluate(iwae(num_particles), pair, {"x": x}, seed=99)
    # Each row comes twice in the batches and once in the full loss.
    error = spread * math.sqrt(rows) * math.sqrt(1 + 1 / 2)
    assert abs(float(torch.stack(batches).mean() - full)) < 4 * error


@pytest.mark.parametrize("objective", [elbo(), iwae(3)], ids=str)
def test_a_weight_of_rows_counts_them_more_than_once(objective: Objective) -> None:
    x = normal(4, 3, seed=4)
    counts = torch.tensor([1.0, 3.0, 1.0, 2.0])
    pair = scaled(linear_decoder(PLANE), counts)  # type: ignore[arg-type]
    expected = -(counts * log_evidence(x, PLANE)).sum()
    torch.testing.assert_close(evaluate(objective, pair, {"x": x}), expected, rtol=1e-12, atol=1e-12)


def point_vae() -> Pair:
    """The variational autoencoder with a guide that draws its mean, so nothing is random."""
    model, guide = vae()

    def point(x: Tensor, mask: Tensor) -> None:
        base = pyro.poutine.block(pyro.poutine.trace(guide).get_trace)(x, mask).nodes["z"]["fn"].base_dist
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(base.loc, event_dim=1))

    return as_pair(model, point)


@pytest.mark.parametrize("objective", [elbo(), elbo(2.0), iwae(3)], ids=str)
def test_the_order_of_rows_does_not_matter(objective: Objective) -> None:
    data, pair = vae_data(), point_vae()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = evaluate(objective, pair, {name: value[order] for name, value in data.items()})
    torch.testing.assert_close(loss, evaluate(objective, pair, data), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("objective", [elbo(), elbo(2.0), iwae(3)], ids=str)
def test_masked_cells_and_rows_never_influence_the_loss(objective: Objective) -> None:
    decode, guide = vae()

    def model(x: Tensor, mask: Tensor) -> None:
        decode(x, mask)
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=mask[:, 0]):
            pyro.sample("first", dist.Normal(0.0, 1.0), obs=x[:, 0])

    data, pair = vae_data(), as_pair(model, guide)
    spoilt = {**data, "x": torch.where(data["mask"], data["x"], 1e6)}
    assert not data["mask"][:, 0].all()
    losses, gradients = [], []
    for entries in (data, spoilt):
        losses.append(evaluate(objective, pair, entries))
        gradients.append(torch.autograd.grad(losses[-1], leaves()))
    assert losses[0] == losses[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_particles_are_drawn_apart_and_inner_plates_are_summed() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("items", y.shape[1], dim=-1), pyro.plate("data", len(y), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    def guide(y: Tensor) -> None:
        with pyro.plate("items", y.shape[1], dim=-1), pyro.plate("data", len(y), dim=-2):
            pyro.sample("z", dist.Normal(0.7 * y, 0.6))

    y = normal(5, 2, seed=1)
    loss = evaluate(iwae(3), as_pair(model, guide), {"y": y}, seed=8)
    torch.manual_seed(8)
    z = 0.7 * y + 0.6 * torch.randn(3, 5, 2)
    log_p = torch.distributions.Normal(0, 1).log_prob(z) + torch.distributions.Normal(z, 0.5).log_prob(y)
    log_weight = (log_p - torch.distributions.Normal(0.7 * y, 0.6).log_prob(z)).sum(-1)
    expected = -(torch.logsumexp(log_weight, 0) - math.log(3)).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


# The weight of the divergence


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_divergence(beta: float) -> None:
    x = normal(20, 3, seed=4)
    loss = evaluate(elbo(beta), linear_decoder(LINE, WIDENING), {"x": x}, seed=8)
    precision = 1 + float((LINE.T @ LINE) / NOISE**2)
    loc, scale = (x - MEAN) @ LINE / NOISE**2 / precision, torch.tensor(WIDENING / math.sqrt(precision))
    torch.manual_seed(8)
    z = loc + scale * torch.randn(20, 1)
    log_likelihood = -0.5 * (((x - MEAN - z @ LINE.T) / NOISE) ** 2).sum() - 60 * math.log(NOISE)
    log_likelihood = log_likelihood - 30 * math.log(2 * math.pi)
    log_ratio = (-0.5 * ((z - loc) / scale) ** 2 - scale.log() + 0.5 * z**2).sum()
    torch.testing.assert_close(loss, beta * log_ratio - log_likelihood, rtol=1e-12, atol=1e-12)


def test_annealing_follows_the_step_of_a_captured_graph() -> None:
    pair, data = linear_decoder(LINE, WIDENING), {"x": normal(5, 3, seed=4)}
    with pyro.validation_enabled(False):
        graph = make_fx(lambda step: elbo(linear(0.5, 2.0, 10))(pair, data, FREE, step))(START)
        for step, beta in ((0.0, 0.5), (5.0, 1.25), (10.0, 2.0), (25.0, 2.0)):
            torch.manual_seed(1)
            torch.testing.assert_close(graph(START + step), evaluate(elbo(beta), pair, data))


def test_linear_is_a_plain_frozen_setting() -> None:
    assert linear(0.0, 1.0, 100) == linear(0.0, 1.0, 100)
    assert elbo(linear(0.0, 1.0, 100)) != elbo(linear(0.0, 1.0, 99))
    step = torch.tensor(25.0, dtype=torch.float32)
    torch.testing.assert_close(linear(1.0, 0.0, 100)(step), torch.tensor(0.75, dtype=torch.float32))


@pytest.mark.parametrize(
    "make", [lambda: elbo(-0.1), lambda: elbo(math.nan), lambda: iwae(0), lambda: linear(0.0, 1.0, 0)]
)
def test_settings_without_meaning_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ArgumentError, match=r"beta must be|must be a positive number"):
        make()


# Discrete sites that the guide leaves out


def mixture(y: Tensor) -> None:
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("arms", 2):
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        arm = pyro.sample("arm", dist.Categorical(shares), infer={"enumerate": "parallel"})
        high = pyro.sample("high", dist.Bernoulli(0.2 + 0.5 * arm), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc[arm] + high, 0.5), obs=y)


def chain(y: Tensor) -> None:
    stay = pyro.sample("stay", dist.Beta(2.0, 2.0))
    state = torch.tensor(0)
    moves = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
    for t in pyro.markov(range(len(y))):
        state = pyro.sample(f"state_{t}", dist.Categorical(moves[state]), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Normal(state.to(y), 0.7), obs=y[t])


@pytest.mark.parametrize("model", [mixture, chain])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_summed_out_the_elbo_is_that_of_pyro_with_its_gradient(model: Program, scale: float) -> None:
    def hidden(message: Any) -> bool:
        return message["name"].startswith(("arm", "high", "state")) and message["name"] != "arms"

    weighted = pyro.poutine.scale(model, scale=scale)
    guide = pyro.poutine.scale(AutoNormal(pyro.poutine.block(model, hide_fn=hidden)), scale=scale)
    y = torch.tensor([-1.0, 0.2, 1.3, 0.8])
    bound = TraceEnum_ELBO(max_plate_nesting=1)
    bound.loss(weighted, guide, y)
    torch.manual_seed(1)
    expected = bound.differentiable_loss(weighted, guide, y)
    expected_gradient = torch.autograd.grad(expected, leaves())
    pair = as_pair(weighted, guide)
    elbo().check(pair, {"y": y})
    loss = evaluate(elbo(), pair, {"y": y})
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves()), expected_gradient, rtol=1e-9, atol=1e-10)


CENTRES = torch.tensor([-1.5, 1.0], dtype=DOUBLE)
SHARES = torch.tensor([0.3, 0.7], dtype=DOUBLE)


def grouped(y: Tensor) -> None:
    """Each row has a group; the prior of its latent and its observation depend on it."""
    with pyro.plate("data", len(y)):
        group = pyro.sample("group", dist.Categorical(SHARES))
        z = pyro.sample("z", dist.Normal(CENTRES[group], 1.0))
        pyro.sample("y", dist.Normal(z, 0.5 + group), obs=y)


def grouped_guide(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(0.7 * y, 0.6))


def hand_written_groups(y: Tensor, num_particles: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p(z), log p(x, z) and log q(z) of each particle and row `(K, N)`."""
    torch.manual_seed(seed)
    z = 0.7 * y + 0.6 * torch.randn(num_particles, len(y))
    normal = torch.distributions.Normal
    log_prior = SHARES.log() + normal(CENTRES, 1.0).log_prob(z[..., None])
    log_joint = log_prior + normal(z[..., None], 0.5 + torch.arange(2)).log_prob(y[:, None])
    return log_prior.logsumexp(-1), log_joint.logsumexp(-1), normal(0.7 * y, 0.6).log_prob(z)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_divergence_from_a_prior_that_was_summed_out(beta: float) -> None:
    y, pair = normal(20, seed=1), as_pair(grouped, grouped_guide)
    log_prior, log_joint, log_q = hand_written_groups(y, 1, seed=8)
    expected = (beta * (log_q - log_prior) - (log_joint - log_prior)).sum()
    torch.testing.assert_close(evaluate(elbo(beta), pair, {"y": y}, seed=8), expected)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_per_row_bounds_sum_out_discrete_sites(scale: float) -> None:
    y, pair = normal(20, seed=1), scaled(as_pair(grouped, grouped_guide), scale)
    iwae(3).check(pair, {"y": y})
    _, log_joint, log_q = hand_written_groups(y, 3, seed=8)
    expected = -scale * ((log_joint - log_q).logsumexp(0) - math.log(3)).sum()
    torch.testing.assert_close(evaluate(iwae(3), pair, {"y": y}, seed=8), expected)


@pytest.mark.parametrize("objective", [elbo(2.0), iwae(3)], ids=str)
def test_summing_out_is_captured(objective: Objective) -> None:
    pair, data = as_pair(grouped, grouped_guide), {"y": normal(6, seed=1)}
    with pyro.validation_enabled(False):
        graph = make_fx(lambda y: objective(pair, {"y": y}, FREE, START))(data["y"])
    other = {"y": data["y"] + 1}
    torch.manual_seed(1)
    torch.testing.assert_close(graph(other["y"]), evaluate(objective, pair, other))


def test_code_that_cannot_take_all_values_at_once_is_refused() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            group = pyro.sample("group", dist.Bernoulli(0.4))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + (group - group.mean()), 1.0), obs=y)

    pair, data = as_pair(model, grouped_guide), {"y": normal(6, seed=1)}
    check_guide(pair, data)
    with pytest.raises(ModelError, match="does not broadcast over the values of its discrete sites"):
        elbo().check(pair, data)


def test_counts_without_end_cannot_be_left_out() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            count = pyro.sample("count", dist.Poisson(2.0))
            z = pyro.sample("z", dist.Normal(count, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(ModelError, match="site 'count'"):
        elbo().check(as_pair(model, grouped_guide), {"y": normal(6, seed=1)})


def test_a_discrete_site_in_the_guide_is_refused() -> None:
    def guide(y: Tensor) -> None:
        grouped_guide(y)
        with pyro.plate("data", len(y)):
            pyro.sample("group", dist.Categorical(SHARES))

    pair, data = as_pair(grouped, guide), {"y": normal(6, seed=1)}
    for objective in (elbo(), iwae(2)):
        with pytest.raises(ModelError, match=r"site 'group': a site of the guide.*leave a discrete site to"):
            objective.check(pair, data)
        with pytest.raises(ModelError, match="site 'group': a site of the guide"):
            evaluate(objective, pair, data)


# Guides that do not fit


def two_latents(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(a, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def draws(*sites: tuple[str, Any]) -> Program:
    """A guide with a flag for each site: is it in the plate?"""

    def guide(y: Tensor) -> None:
        for name, fn in sites:
            in_plate = name not in ("a", "b")
            with pyro.plate("data", len(y)) if in_plate else FREE:
                pyro.sample(name, fn)

    return guide


UNIT = dist.Normal(torch.zeros((), dtype=DOUBLE), 1.0)
MISFITS = {
    "missing": (draws(("a", UNIT)), r"sites \['z'\].*latent sites are \['a', 'z'\], the guide draws \['a'\]"),
    "unknown": (draws(("a", UNIT), ("z", UNIT), ("b", UNIT)), r"sites \['b'\].*draws \['a', 'z', 'b'\]"),
    "observed": (draws(("a", UNIT), ("z", UNIT), ("y", UNIT)), r"sites \['y'\]: the guide samples what"),
    "shape": (draws(("a", UNIT.expand([2]).to_event(1)), ("z", UNIT)), r"site 'a': guide and model disagree"),
    "the model itself": (two_latents, r"sites \['y'\]: the guide samples what the model observes"),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("check", [check_guide, elbo().check, iwae(2).check])
def test_a_guide_that_does_not_match_is_refused(name: str, check: Callable[[Pair, Data], None]) -> None:
    guide, message = MISFITS[name]
    with pytest.raises(ModelError, match=message):
        check(as_pair(two_latents, guide), {"y": torch.zeros(3)})


@pytest.mark.parametrize("name", PAIRS)
def test_a_guide_that_matches_passes_and_nothing_is_drawn(name: str) -> None:
    model, guide, data = pairs()[name]
    Trace_ELBO().loss(model, guide, **data)  # autoguides look at the model once
    before = torch.random.get_rng_state()
    check_guide(as_pair(model, guide), data)
    elbo().check(as_pair(model, guide), data)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_pair_without_guide_is_refused() -> None:
    with pytest.raises(ModelError, match="no guide"):
        check_guide(as_pair(two_latents), {"y": torch.zeros(3)})


UNREPARAMETERISED = UNIT.expand([]).has_rsample_(False)


@pytest.mark.parametrize("objective", [elbo(), iwae(2)], ids=str)
def test_a_guide_without_pathwise_gradient_is_refused(objective: Objective) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    pair, data = as_pair(model, draws(("z", UNREPARAMETERISED))), {"y": torch.zeros(3)}
    with pytest.raises(ModelError, match="site 'z': a site of the guide is not reparameterised"):
        objective.check(pair, data)
    with pytest.raises(ModelError, match="site 'z': a site of the guide is not reparameterised"):
        evaluate(objective, pair, data)


# Bounds per row


@pytest.mark.parametrize("num_particles", [1, 2])
def test_a_site_outside_of_the_rows_is_refused_by_name(num_particles: int) -> None:
    data = {"y": torch.zeros(3)}
    pair = as_pair(two_latents, draws(("a", UNIT), ("z", UNIT)))
    with pytest.raises(ModelError, match="site 'a' of the model: a bound per row needs every site"):
        iwae(num_particles).check(pair, data)
    with pytest.raises(ModelError, match="site 'a' of the model"):
        evaluate(iwae(num_particles), pair, data)


def test_a_guide_that_ties_rows_together_is_refused_by_name() -> None:
    pair, x = linear_decoder(PLANE), normal(4, 3, seed=1)
    guide = AutoMultivariateNormal(pair.model)
    guide(x)
    with pytest.raises(
        ModelError, match="site '_AutoMultivariateNormal_latent' of the guide: a bound per row"
    ):
        iwae(2).check(as_pair(pair.model, guide), {"x": x})


def local(decode: Callable[[Tensor], Tensor]) -> Pair:
    """Three latents a row and data `y (N,)` around what is made of them."""

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(decode(z), 1.0), obs=y)

    def guide(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(y[:, None].expand(-1, 3), 1.0).to_event(1))

    return as_pair(model, guide)


def test_code_that_does_not_broadcast_is_refused_with_its_site() -> None:
    pair, data = local(lambda z: torch.einsum("nl->n", z)), {"y": normal(4, seed=1)}
    check_guide(pair, data)
    with pytest.raises(ModelError, match=r"after sites \['z'\]: the code does not run for several particles"):
        evaluate(iwae(2), pair, data)
    with pytest.raises(ModelError, match="count dimensions from the right"):
        iwae(2).check(pair, data)


def test_code_that_mistakes_particles_for_rows_is_refused() -> None:
    """Row means over dimension 0 run for particles as well, and give other numbers."""
    centred, data = local(lambda z: (z - z.mean(0)).sum(-1)), {"y": normal(4, seed=1)}
    assert evaluate(iwae(2), centred, data).isfinite()
    with pytest.raises(ModelError, match=r"site 'y of the model'.*not those of each alone"):
        iwae(2).check(centred, data)
    iwae(2).check(local(lambda z: (z - z.mean(-2, keepdim=True)).sum(-1)), data)


def test_dropout_is_no_mistake() -> None:
    iwae(2).check(local(lambda z: nn.functional.dropout(z, 0.5).sum(-1)), {"y": normal(4, seed=1)})
