"""Latents of rows and rows from latents, of a linear model whose posterior is known, and of a user's."""

import functools
import re

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.models import VAE, BayesianMVN
from pyrolatent.result import Fit
from tests.test_vae import MIXED, factors, holes, linear_gaussian, log_evidence, trained

WITH_HOLES = holes(factors(), 0.2)


@pytest.fixture(scope="module")
def fit() -> Fit:
    return trained(factors(), pyl.elbo())


def exact_means(fit: Fit, x: Tensor) -> Tensor:
    """E[z | x] = W' (W W' + S)^-1 (x - b) of complete rows under a linear decoder."""
    mean, covariance = linear_gaussian(fit)
    weight = fit.params["decoder.heads.0.location.weight"]
    return torch.linalg.solve(covariance, (x - mean).mT).mT @ weight


def test_encoded_rows_are_posterior_means(fit: Fit) -> None:
    """The guide learns them to a quarter of the prior's scale; sampling comes as close as its error."""
    found = pyl.encode(fit)
    assert list(found.columns) == ["z[0]", "z[1]"]
    expected = exact_means(fit, fit.data["x"])
    assert float((torch.tensor(found.to_numpy()) - expected).abs().max()) < 0.25
    few = factors(5).iloc[10:20]
    sampled = pyl.encode(fit, few, pyl.HMC(num_chains=16, num_draws=300))
    assert list(sampled.index) == list(range(10, 20))
    exact = exact_means(fit, fit.schema.encode(few)["x"])
    assert float((torch.tensor(sampled.to_numpy()) - exact).abs().max()) < 0.1  # 4,800 draws, sd at most 1


def test_samples_are_draws_of_the_guide(fit: Fit) -> None:
    """One row, 4,000 times: means and variances of its draws are those of the guide's normal."""
    rows = 4_000
    row = factors(5).iloc[[7] * rows]
    found = torch.tensor(pyl.encode(fit, row, sample=True).to_numpy())
    data = fit.schema.encode(row.iloc[:1])
    with fit.context():
        normal = pyro.poutine.trace(fit.pair.guide).get_trace(**data).nodes["z"]["fn"].base_dist
    assert bool(((found.mean(0) - normal.mean[0]).abs() < 4.5 * normal.stddev[0] / rows**0.5).all())
    assert bool(((found.var(0) / normal.variance[0] - 1).abs() < 4.5 * (2 / rows) ** 0.5).all())
    pd.testing.assert_frame_equal(
        pyl.encode(fit, row.head(1)), pd.DataFrame(normal.mean, [7], ["z[0]", "z[1]"])
    )


def test_samples_follow_their_seed(fit: Fit) -> None:
    before, first = torch.get_rng_state(), pyl.encode(fit, sample=True)
    assert first.equals(pyl.encode(fit, sample=True, seed=fit.seed))
    assert not first.equals(pyl.encode(fit, sample=True, seed=fit.seed + 1))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(pyl.ArgumentError, match="a sample is drawn from the guide, and means are what"):
        pyl.encode(fit, method=pyl.HMC(), sample=True)


def test_the_score_is_the_evidence_in_the_units_of_the_table() -> None:
    """Of a linear decoder, log p(x_o) is known; in units ten times as small it is higher by log 10 a cell."""
    model = trained(WITH_HOLES, pyl.iwae(5), 1_000)
    found = pyl.score(model, num_draws=2_000)
    cells = torch.where(model.data["mask"], model.schema.log_jacobian(model.data["x"]), 0.0).sum(1)
    expected = (log_evidence(model) + cells).numpy()
    assert found.index.equals(WITH_HOLES.index)
    assert np.abs(found - expected).max() < 0.2
    assert abs((found - expected).mean()) < 0.01
    scaled = trained(WITH_HOLES / 10, pyl.iwae(5), 1_000)
    by_cells = WITH_HOLES.notna().sum(axis=1) * np.log(10)
    np.testing.assert_allclose(pyl.score(scaled, num_draws=2_000) - found, by_cells, atol=0.1)


def test_probabilities_of_counts_and_labels_have_no_jacobian() -> None:
    pair = VAE(pyl.infer_schema(MIXED), 2)
    method = pyl.SVI(num_steps=10, batch_size=100)
    fit = pyl.fit(pair, MIXED, method, seed=0, progress=False, compile=False)
    discrete = MIXED[["stars", "count", "binary", "colour", "size"]]
    only = MIXED.copy()
    only[["real", "positive", "unit", "other real"]] = np.nan
    assert discrete.notna().any(axis=1).all()
    assert (pyl.score(fit, only) < 0).all()  # logarithms of probabilities


def test_generated_rows_have_the_model_s_moments(fit: Fit) -> None:
    rows = pyl.generate(fit, 40_000, seed=1)
    assert list(rows.columns) == list("abcde")
    assert rows.equals(pyl.generate(fit, 40_000, seed=1))
    mean, covariance = linear_gaussian(fit)
    scale = fit.schema.scale_vector
    z = (torch.tensor(rows.to_numpy()) - fit.schema.location_vector) / scale
    assert float((z.mean(0) - mean).abs().max()) < 4.5 / 200
    found = torch.cov(z.mT)
    bound = 4.5 * (covariance.diagonal()[:, None] * covariance.diagonal() * 2).sqrt() / 200
    assert bool(((found - covariance).abs() < bound).all())


def test_generated_tables_have_the_dtypes_of_the_table() -> None:
    pair = VAE(pyl.infer_schema(MIXED), 2)
    fit = pyl.fit(pair, MIXED, pyl.SVI(num_steps=10, batch_size=100), seed=0, progress=False, compile=False)
    for rows in (pyl.generate(fit, 50), pyl.reconstruct(fit)):
        assert not rows.isna().any().any()
        pd.testing.assert_series_equal(rows.dtypes, MIXED.dtypes)
    assert pyl.reconstruct(fit).index.equals(MIXED.index)


def test_a_model_without_latents_of_rows_generates_too() -> None:
    frame = factors()
    fit = pyl.fit(BayesianMVN(pyl.infer_schema(frame)), frame, seed=0, progress=False, compile=False)
    rows = pyl.generate(fit, 20_000)
    # correlations of 600 rows and of 20,000: each entry errs by 1 / sqrt(rows) at most
    assert (rows.corr() - frame.corr()).abs().to_numpy().max() < 4 * (600**-0.5 + 20_000**-0.5)


def test_a_traversal_moves_one_latent(fit: Fit) -> None:
    row = factors(7).iloc[[3]]
    values = [-2.0, 0.0, 2.0]
    found = pyl.traverse(fit, row, "z[1]", values)
    assert list(found.index) == values
    assert found.index.name == "z[1]"
    steps = found.diff().iloc[1:].to_numpy()
    weight = fit.params["decoder.heads.0.location.weight"][:, 1] * fit.schema.scale_vector
    np.testing.assert_allclose(steps, np.tile(2 * weight.numpy(), (2, 1)), rtol=1e-6)
    pd.testing.assert_frame_equal(found, pyl.traverse(fit, row, 1, values))


# --- a user's own pair, on tensors ---


class Pictures:
    """A Bernoulli autoencoder of 4 x 4 pictures, as a user writes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.decoder, self.encoder = torch.nn.Linear(2, 16), torch.nn.Linear(16, 4)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = self.decoder(z).reshape(*z.shape[:-1], 4, 4)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(2), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            location, log_scale = self.encoder(x.flatten(1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(location, log_scale.exp()).to_event(1))


@functools.cache
def pictures() -> Fit:
    x = (torch.rand(30, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    user = Pictures()
    method = pyl.SVI(num_steps=20, batch_size=10)
    return pyl.fit(user.model, {"x": x}, method, guide=user.guide, seed=0, progress=False, compile=False)


def test_a_user_s_pair_on_tensors() -> None:
    fit = pictures()
    assert pyl.encode(fit).shape == (30, 2)
    assert pyl.generate(fit, 7)["x"].shape == (7, 4, 4)
    assert set(pyl.reconstruct(fit)["x"].unique().tolist()) <= {0.0, 1.0}
    one = {"x": fit.data["x"][:1]}
    assert pyl.traverse(fit, one, 0, [0.0, 1.0])["x"].shape == (2, 4, 4)
    assert (pyl.score(fit) < 0).all()


def regression(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def test_inputs_of_generated_rows_are_those_of_the_fit() -> None:
    x = torch.tensor([1.0, 100.0])
    fit = pyl.fit(regression, {"x": x, "y": 2 * x}, seed=0, progress=False, compile=False)
    y = pyl.generate(fit, 400)["y"]
    assert 100 < int((y > 50).sum()) < 300  # a half, sd 10


def test_what_cannot_be_encoded() -> None:
    x = torch.tensor([1.0, 2.0])
    fit = pyl.fit(regression, {"x": x, "y": 2 * x}, seed=0, progress=False, compile=False)
    for verb in (pyl.encode, pyl.reconstruct, pyl.score):
        with pytest.raises(pyl.ModelError, match="the model has no latents of rows"):
            verb(fit)


def test_wrong_arguments(fit: Fit) -> None:
    with pytest.raises(pyl.ArgumentError, match="traverse takes one row: got 600"):
        pyl.traverse(fit, factors(), 0, [1.0])
    with pytest.raises(
        pyl.ArgumentError, match=re.escape("no such latent: got 'z[2]'. choose one of ['z[0]', 'z[1]']")
    ):
        pyl.traverse(fit, factors().iloc[:1], "z[2]", [1.0])
    with pytest.raises(pyl.ArgumentError, match="the number of rows must be positive: got 0"):
        pyl.generate(fit, 0)
    with pytest.raises(pyl.ArgumentError, match="num_draws is too small: got 0"):
        pyl.score(fit, num_draws=0)
    with pytest.raises(pyl.DataError, match="lacks column"):
        pyl.encode(fit, factors()[["a", "b"]])
