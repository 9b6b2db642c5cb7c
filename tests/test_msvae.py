"""The second stage: what the first one knows stays, what it leaves out is added."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.models import VAE, MultiStageVAE
from pyrolatent.nn.encoders import expected_features
from tests.test_images import bars
from tests.test_nn import table
from tests.test_vae import holes

ROWS = 400

pytestmark = pytest.mark.filterwarnings("ignore:The loss still fell:pyrolatent.FitWarning")


def rows(seed: int = 0) -> pd.DataFrame:
    """Six columns that three factors explain: two latents leave one out."""
    rng = np.random.default_rng(seed)
    scores = np.repeat(rng.normal(size=(ROWS, 3)), 2, 1)
    return pd.DataFrame(scores + 0.2 * rng.normal(size=(ROWS, 6)), columns=list("abcdef"))


def fitted(pair: pyl.Pair, data: object, steps: int = 1_500, **settings: object) -> pyl.Fit:
    method = pyl.SVI(pyl.elbo(), num_steps=steps, lr=5e-3, batch_size=100)
    return pyl.fit(pair, data, method, seed=0, compile=False, progress=False, **settings)


@pytest.fixture(scope="module")
def first() -> pyl.Fit:
    return fitted(VAE(pyl.infer_schema(rows()), 2, (16,)), rows())


@pytest.fixture(scope="module")
def second(first: pyl.Fit) -> pyl.Fit:
    return fitted(MultiStageVAE(first, hidden=(16,)), rows())


def error(fit: pyl.Fit, frame: pd.DataFrame) -> float:
    return float(((pyl.reconstruct(fit, frame) - frame) ** 2).mean().mean())


def test_the_second_stage_adds_what_the_first_leaves_out(first: pyl.Fit, second: pyl.Fit) -> None:
    fresh = rows(1)
    assert error(second, fresh) < error(first, fresh) / 3
    assert pyl.score(second, fresh, 200).mean() > pyl.score(first, fresh, 200).mean() + 1


def test_the_first_stage_stays_as_it_is(first: pyl.Fit, second: pyl.Fit) -> None:
    before, after = pyl.encode(first), pyl.encode(second)
    assert list(after.columns) == ["c[0]", "c[1]", "z[0]", "z[1]"]
    np.testing.assert_array_equal(after[["c[0]", "c[1]"]], before)
    assert not any(name.startswith("encoder") for name in second.params)


def test_the_bound_is_that_of_both_stages(first: pyl.Fit, second: pyl.Fit) -> None:
    """log p(x, c, z) - log q(c, z | x) of one draw, by the parts of both networks."""
    pair, data = second.pair, second.data
    with second.context():
        c = pair.first_latents(**data)
        drawn = c.mean
        y = pair.first_rows(drawn)
        z = pair.details(**data, minus=y)
        cells = pair.decoding(z.mean, y)
        expected = (
            sum(torch.distributions.Normal(0.0, 1.0).log_prob(v).sum() for v in (drawn, z.mean))
            + torch.cat([block.log_prob(data["x"]) for block in cells.values()], -1).sum()
            - c.log_prob(c.mean).sum()
            - z.log_prob(z.mean).sum()
        )
        run = pyro_pair(pair, data, {"c": drawn, "z": z.mean})
    torch.testing.assert_close(run, expected)


def pyro_pair(pair: pyl.Pair, data: dict, latents: dict[str, Tensor]) -> Tensor:
    from pyro import poutine

    log_joint = poutine.trace(poutine.condition(pair.model, latents)).get_trace(**data).log_prob_sum()
    fixed = poutine.trace(poutine.condition(pair.guide, latents)).get_trace(**data)
    return log_joint - fixed.log_prob_sum()


def test_features_are_taken_away_as_they_are_expected() -> None:
    """Of every kind: the mean of a feature over draws of the cells is what is expected of it."""
    from pyrolatent.nn.encoders import features, levels_of
    from pyrolatent.nn.heads import RowDecoder

    columns = pyl.infer_schema(table()).modelled
    torch.manual_seed(0)
    decoder = RowDecoder(columns, (4,), 3).double()
    with torch.no_grad():
        cells = decoder(torch.randn(2, 3).double())
        draws = pyl.ColumnwiseDistribution(
            cells, torch.ones(2, len(columns), dtype=torch.bool), [c.name for c in columns]
        ).sample((20_000,))
        found = features(draws, torch.ones_like(draws), levels_of(columns))
        expected = expected_features(columns, cells)
    assert expected.shape == (2, len(columns) + 2)  # three colours
    error = found.std(0) / 20_000**0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * error).all()


def test_tables_with_holes_and_labels() -> None:
    frame = holes(table(), 0.2)
    first = fitted(VAE(pyl.infer_schema(frame), 3, (8,)), frame, 50)
    second = fitted(MultiStageVAE(first, 2, (8,)), frame, 50)
    assert second.info["rung"] == "vmap"
    other = {**second.data, "x": torch.where(second.data["mask"], second.data["x"], 1.0)}
    again = fitted(second.pair, other, 50)
    assert torch.equal(again.losses["train"], second.losses["train"])
    completed = pyl.impute(second, num_draws=2).mean
    assert not completed.isna().any().any()
    pd.testing.assert_series_equal(pyl.generate(second, 3).dtypes, frame.dtypes)


def test_images_have_two_stages() -> None:
    images = bars()
    first = fitted(VAE(pyl.Images((1, 8, 8), "binary"), 2, (32,)), {"x": images}, 300)
    second = fitted(MultiStageVAE(first, hidden=(32,)), {"x": images}, 300)

    weighted = pyl.SVI(pyl.iwae(3), num_steps=5, batch_size=50)
    pyl.fit(second.pair, {"x": images}, weighted, seed=0, compile=False, progress=False)

    def wrong(fit: pyl.Fit) -> float:
        return float((pyl.reconstruct(fit)["x"] != images).float().mean())

    assert wrong(second) < wrong(first)
    mixed = pyl.mixup(second, {"x": images[:5]}, {"x": images[5:10]})
    assert mixed["x"].shape == (5, 1, 8, 8)


def test_a_mixup_of_rows_with_themselves_is_their_reconstruction(second: pyl.Fit) -> None:
    frame = rows(1)
    reconstructed = pyl.reconstruct(second, frame)
    pd.testing.assert_frame_equal(pyl.mixup(second, frame, frame), reconstructed, rtol=1e-5)
    pd.testing.assert_frame_equal(pyl.mixup(second, frame, frame, "contrast"), reconstructed, rtol=1e-5)
    assert not np.allclose(pyl.mixup(second, frame, frame, "whole"), reconstructed)


def test_a_mixup_has_the_details_of_the_other(second: pyl.Fit) -> None:
    """By hand: c of one row, z of the other."""
    content, style = rows(1), rows(2)
    content.index = content.index + 1_000
    latents = pyl.encode(second, content)[["c[0]", "c[1]"]].to_numpy()
    of_style = pyl.encode(second, style)[["z[0]", "z[1]"]].to_numpy()
    with second.context():
        y = second.pair.first_rows(torch.tensor(latents).float())
        cells = second.pair.decoding(torch.tensor(of_style).float(), y)
        expected = torch.cat([block.mean for block in cells.values()], -1).double()
    expected = second.schema.decode(expected, content.index)
    pd.testing.assert_frame_equal(pyl.mixup(second, content, style), expected, rtol=1e-5)


def test_a_saved_one_comes_back_with_its_first_stage(second: pyl.Fit, tmp_path) -> None:
    pyl.save(second, tmp_path / "fit", include_data=False)
    back = pyl.load(tmp_path / "fit")
    frame = rows(3)
    pd.testing.assert_frame_equal(pyl.encode(back, frame), pyl.encode(second, frame))
    pd.testing.assert_frame_equal(pyl.mixup(back, frame, rows(4)), pyl.mixup(second, frame, rows(4)))
    assert back.pair.first.pair == second.pair.first.pair


def test_another_first_stage_is_another_run(first: pyl.Fit, tmp_path) -> None:
    fitted(MultiStageVAE(first, hidden=(4,)), rows(), 20, checkpoint=tmp_path / "run")
    other = fitted(VAE(pyl.infer_schema(rows()), 2, (16,)), rows(), 10)
    with pytest.raises(pyl.StoreError, match="stands on"):
        fitted(MultiStageVAE(other, hidden=(4,)), rows(), 20, resume=tmp_path / "run")


def test_what_is_no_first_stage(first: pyl.Fit) -> None:
    mvn = pyl.models.BayesianMVN(pyl.infer_schema(rows()))
    method = pyl.HMC(num_chains=4, num_warmup=20, num_draws=10)
    with pytest.warns(pyl.FitWarning):  # so few draws
        other = pyl.fit(mvn, rows(), method, compile=False, progress=False, seed=0)
    with pytest.raises(pyl.ModelError, match="the first stage is no fitted VAE: got Fit of BayesianMVN"):
        MultiStageVAE(other)
    with pytest.raises(pyl.ModelError, match="the first stage is no fitted VAE: got VAE of NoneType"):
        MultiStageVAE(first.pair)
    twice = pyl.SVI(num_steps=2, num_refits=2)
    several = pyl.fit(first.pair, rows(), twice, seed=0, compile=False, progress=False)
    with pytest.raises(pyl.ModelError, match=re.escape("fitted several times: 2 of them. use num_refits=1")):
        MultiStageVAE(several)


def test_wrong_settings(first: pyl.Fit, second: pyl.Fit) -> None:
    with pytest.raises(pyl.ArgumentError, match="z has more dimensions than c: z has 3, c 2"):
        MultiStageVAE(first, 3)
    with pytest.raises(pyl.ArgumentError, match="latent_dim must be a positive whole number: got 0"):
        MultiStageVAE(first, 0)
    with pytest.raises(pyl.ArgumentError, match=r"there is no such variant: got 'z'\. choose one of"):
        pyl.mixup(second, rows(), rows(), "z")
    with pytest.raises(pyl.DataError, match="different numbers of rows: 400 and 3"):
        pyl.mixup(second, rows(), rows().head(3))
    with pytest.raises(pyl.ModelError, match="mixup needs two stages: got a fit of VAE"):
        pyl.mixup(first, rows(), rows())
