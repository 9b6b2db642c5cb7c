"""The variational autoencoder of tables, where its likelihood is known in closed form and elsewhere."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import pyrolatent as pyl
from pyrolatent import draws, metrics
from pyrolatent.models import VAE
from pyrolatent.result import Fit
from tests.test_nn import table

COLUMNS, LATENT, ROWS = 5, 2, 600


def factors(seed: int = 0) -> pd.DataFrame:
    """Rows of 5 columns that two factors explain."""
    rng = np.random.default_rng(seed)
    loadings = np.array([[0.9, 0.8, 0.7, 0.1, 0.0], [0.0, 0.2, -0.5, 0.8, 0.9]])
    rows = rng.normal(size=(ROWS, LATENT)) @ loadings + 0.5 * rng.normal(size=(ROWS, COLUMNS))
    return pd.DataFrame(rows, columns=list("abcde"))


def holes(frame: pd.DataFrame, fraction: float, seed: int = 1) -> pd.DataFrame:
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < fraction)


def trained(frame: pd.DataFrame, objective: pyl.objectives.Objective, num_steps: int = 2_500) -> Fit:
    pair = VAE(pyl.infer_schema(frame), LATENT, hidden=())
    method = pyl.SVI(objective, num_steps=num_steps, lr=2e-2)
    return pyl.fit(pair, frame, method, seed=0, dtype=torch.float64, compile=False, progress=False)


def linear_gaussian(fit: Fit) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a row under a linear decoder: p(x) = N(b, W W' + diag(s^2))."""
    head = {key.removeprefix("decoder.heads.0."): value for key, value in fit.params.items()}
    scale = 0.05 + torch.nn.functional.softplus(head["raw_scale"])
    weight = head["location.weight"]
    return head["location.bias"], weight @ weight.mT + torch.diag(scale**2)


def log_evidence(fit: Fit) -> Tensor:
    """Return log p(observed cells) of each row `(N,)`, in closed form."""
    mean, covariance = linear_gaussian(fit)
    found = []
    for row, seen in zip(fit.data["x"], fit.data["mask"], strict=True):
        part = torch.distributions.MultivariateNormal(mean[seen], covariance[seen][:, seen])
        found.append(part.log_prob(row[seen]) if seen.any() else torch.zeros(()))
    return torch.stack(found)


def best_factor_analysis(frame: pd.DataFrame) -> float:
    """Return the highest log-likelihood of two factors for complete rows, in nats, by EM."""
    x = torch.tensor(frame.to_numpy())
    x = (x - x.mean(0)) / x.std(0, correction=0)
    covariance = x.T @ x / len(x)
    random = torch.Generator().manual_seed(0)
    weight, noise = torch.randn(COLUMNS, LATENT, generator=random).double(), torch.ones(COLUMNS).double()
    for _ in range(3_000):  # Rubin and Thayer (1982)
        gain = torch.linalg.solve(weight @ weight.T + noise.diag(), weight).T
        moment = torch.eye(LATENT).double() - gain @ weight + gain @ covariance @ gain.T
        weight = torch.linalg.solve(moment, gain @ covariance).T
        noise = (covariance - weight @ gain @ covariance).diagonal()
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(COLUMNS).double(), weight @ weight.T + noise.diag()
    )
    return float(normal.log_prob(x).sum())


@pytest.fixture(scope="module")
def complete() -> Fit:
    return trained(factors(), pyl.elbo())


def test_a_linear_decoder_is_factor_analysis(complete: Fit) -> None:
    """The posterior of a row is normal, with one covariance for all: the bound reaches log p(x)."""
    evidence, best = float(log_evidence(complete).sum()), best_factor_analysis(factors())
    assert best - 3 < evidence < best + 0.01  # of some -3,500 nats
    bound = -float(complete.losses["train"][0, -500:].mean())
    assert evidence - 3 < bound < evidence + 1  # the mean of 500 noisy losses


def test_with_holes_the_importance_weighted_bound_is_tighter() -> None:
    frame = holes(factors(), 0.3)
    fits = [trained(frame, objective, 1_500) for objective in (pyl.elbo(), pyl.iwae(20))]
    gaps = [float(log_evidence(fit).sum() + fit.losses["train"][0, -300:].mean()) for fit in fits]
    assert 0 < gaps[1] < gaps[0] / 3


def test_the_density_is_that_of_the_observed_cells(complete: Fit) -> None:
    """log p(x_o, z) of one run, against the decoder's matrices by hand."""
    frame = holes(factors(), 0.3)
    data = complete.schema.encode(frame)
    z = torch.randn(ROWS, LATENT, generator=torch.Generator().manual_seed(3)).double()
    with complete.context():
        conditioned = poutine.condition(complete.pair.model, {"z": z})
        found = poutine.trace(conditioned).get_trace(**data).log_prob_sum()
    head = {key.removeprefix("decoder.heads.0."): value for key, value in complete.params.items()}
    scale = 0.05 + torch.nn.functional.softplus(head["raw_scale"])
    cells = torch.distributions.Normal(z @ head["location.weight"].mT + head["location.bias"], scale)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
    expected = prior + torch.where(data["mask"], cells.log_prob(data["x"]), 0.0).sum()
    torch.testing.assert_close(found, expected)


def test_many_rows_are_scored_and_completed_in_parts(complete: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = holes(factors(3), 0.1)
    with torch.no_grad():
        data = complete.schema.encode(frame)
        exact = log_evidence(replace(complete, problem=replace(complete.problem, data=data)))
    units = complete.schema.log_jacobian(data["x"]).where(data["mask"], 0.0).sum(1)
    whole = pyl.score(complete, frame)
    monkeypatch.setattr(draws, "RUN_NUMBERS", draws.PARTICLES * 10 * 250)  # x and mask of 250 rows
    parts = pyl.score(complete, frame)
    for found in (whole, parts):
        error = found.to_numpy() - (exact + units).numpy()
        assert abs(error.mean()) < 0.05  # a bound from below, close where few cells are missing
        assert np.corrcoef(found, exact + units)[0, 1] > 0.99
    completed = pyl.impute(complete, frame, num_draws=3).mean
    pd.testing.assert_frame_equal(completed.where(frame.notna(), frame), frame)


MIXED = holes(table(), 0.2)


@pytest.mark.parametrize("encoder", ["cells", "embedding"])
def test_missing_cells_change_nothing(encoder: str) -> None:
    pair = VAE(pyl.infer_schema(MIXED), 3, hidden=(8,), encoder=encoder)
    data = pair.schema.encode(MIXED)
    other = {**data, "x": torch.where(data["mask"], data["x"], 1.0)}
    fits = [
        pyl.fit(pair, some, pyl.SVI(num_steps=20, batch_size=50), seed=0, progress=False, compile=False)
        for some in (data, other)
    ]
    assert torch.equal(fits[0].losses["train"], fits[1].losses["train"])


def test_the_order_of_columns_changes_nothing() -> None:
    """Heads are drawn column by column, so the same weights need the same places."""
    schema = pyl.infer_schema(MIXED)
    pair, data = VAE(schema, 3, hidden=(8,)), schema.encode(MIXED)
    turned = pyl.Schema(schema.columns[3:] + schema.columns[:3])
    moved, x = VAE(turned, 3, hidden=(8,)), turned.encode(MIXED)
    z = torch.randn(len(MIXED), 3, generator=torch.Generator().manual_seed(0)).double()
    names = [column.name for column in schema.modelled]
    with pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(0)
        cells = pair.decoding(z.float())
        order = {name: k for block in cells for k, name in enumerate(block)}
        assert sorted(order) == sorted(names)
        first = pyl.ColumnwiseDistribution(cells, data["mask"], pair.schema.names)
        second = pyl.ColumnwiseDistribution(cells, x["mask"], moved.schema.names)
        torch.testing.assert_close(first.log_prob(data["x"]), second.log_prob(x["x"]))


def test_every_kind_of_column_is_learnt_and_completed() -> None:
    fit = pyl.fit(
        VAE(pyl.infer_schema(MIXED), 3), MIXED, pyl.SVI(num_steps=400, batch_size=100), seed=0,
        progress=False, compile=False,
    )  # fmt: skip
    assert fit.info["rung"] == "vmap"
    assert fit.problem.dtype is torch.float32
    losses = fit.losses["train"][0]
    assert losses[-50:].mean() < losses[:50].mean() - 20  # the columns are independent
    imputed = pyl.impute(fit, num_draws=5)
    for frame in imputed.frames:
        assert not frame.isna().any().any()
        pd.testing.assert_series_equal(frame.dtypes, MIXED.dtypes)
        pd.testing.assert_frame_equal(frame.where(MIXED.notna(), MIXED), MIXED)
    assert set(imputed.probabilities("colour").columns) == {"red", "green", "blue"}


def test_two_fits_share_nothing() -> None:
    frame = factors()
    pair = VAE(pyl.infer_schema(frame), LATENT)
    method = pyl.SVI(num_steps=5, batch_size=50)
    fits = [pyl.fit(pair, frame, method, seed=s, progress=False, compile=False) for s in (0, 1, 0)]
    assert torch.equal(fits[0].losses["train"], fits[2].losses["train"])
    assert not torch.equal(fits[0].losses["train"], fits[1].losses["train"])
    assert not list(pyro.get_param_store().keys())


def test_a_saved_one_comes_back(complete: Fit, tmp_path) -> None:
    pyl.save(complete, tmp_path / "fit")
    back = pyl.load(tmp_path / "fit")
    assert back.pair == complete.pair
    frame = holes(factors(2), 0.3)
    first, second = (pyl.impute(fit, frame, num_draws=3, seed=4).mean for fit in (complete, back))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be a positive whole number: got 0"),
        ({"latent_dim": 2.5}, "latent_dim must be a positive whole number: got 2.5"),
        ({"hidden": (8, 0)}, "a hidden layer has no features: got hidden=(8, 0)"),
        ({"encoder": "lstm"}, "the encoder is unknown: got 'lstm'. choose 'cells' or 'embedding'"),
        ({"encoder": "embedding", "hidden": ()}, "the encoder 'embedding' needs a hidden layer"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(pyl.ArgumentError, match=re.escape(message)):
        VAE(pyl.infer_schema(factors()), **settings)


def test_a_table_is_no_schema() -> None:
    message = "the rows are neither a schema nor images: got DataFrame. pass infer_schema(frame), or Images"
    with pytest.raises(pyl.ArgumentError, match=re.escape(message)):
        VAE(factors())


@pytest.mark.parametrize("verb", [pyl.encode, pyl.reconstruct, pyl.score, metrics.active_units])
@pytest.mark.parametrize(("column", "cell"), [("stars", 9.0), ("count", -3.0)])
def test_new_cells_outside_of_the_support_are_refused(verb: Callable, column: str, cell: float) -> None:
    fit = small()
    frame = MIXED.head(3).copy()
    frame[column] = frame[column].astype(object)
    frame.loc[1, column] = cell
    with pytest.raises(pyl.DataError, match=f"column '{column}', row 1: .* outside the support"):
        verb(fit, frame)


@functools.cache
def small() -> Fit:
    method = pyl.SVI(num_steps=5, batch_size=50)
    return pyl.fit(VAE(pyl.infer_schema(MIXED), 2), MIXED, method, seed=0, progress=False, compile=False)


def test_a_row_without_cells_is_encoded() -> None:
    nothing = MIXED.head(2).copy()
    nothing.loc[0] = None
    nothing = nothing.astype(MIXED.dtypes.to_dict())
    assert pyl.encode(small(), nothing).notna().all(axis=None)
    assert abs(pyl.score(small(), nothing, 5_000).iloc[0]) < 0.1  # log 1, from draws of the guide


def test_what_is_possible_and_seldom_meant_is_said() -> None:
    with pytest.warns(pyl.FitWarning, match="A latent vector of 40 numbers for rows of 5 columns"):
        VAE(pyl.infer_schema(factors()), 40)
    many = pd.DataFrame(
        {"a": np.arange(2_000.0) % 7.5, "label": [f"level {k % 1_000}" for k in range(2_000)]}
    )
    with pytest.warns(pyl.FitWarning, match=r"Columns \['label'\] have more than 100 labels"):
        pair = VAE(pyl.infer_schema(many), 2)
    fit = pyl.fit(pair, many, pyl.SVI(num_steps=3, batch_size=100), seed=0, progress=False, compile=False)
    assert math.isfinite(float(fit.losses["train"].sum()))
