import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.distributions import constraints
from scipy import stats
from torch import Tensor

from pyrolatent import groups as export_groups
from pyrolatent.errors import ArgumentError, FitWarning, ModelError
from pyrolatent.export import GROUPS, describe, to_inference_data, wrap
from pyrolatent.fit import fit
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.svi import SVI
from pyrolatent.models import BayesianMVN
from pyrolatent.pair import Model, Pair, as_pair
from pyrolatent.result import Fit, Weights
from pyrolatent.schema import Schema, infer_schema
from tests.arviz_objects import (
    assert_same,
    dataset,
    effective_parameters,
    from_file,
    groups,
    is_export,
    traced,
)

CHAINS, DRAWS = 4, 50


def quick(model: Model | Pair, data: Mapping[str, Any] | pd.DataFrame, num_draws: int = DRAWS) -> Fit:
    """A fit that is short, and says so: its shape is tested, not its draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        method = HMC(CHAINS, 50, num_draws)
        return fit(model, data, method, seed=1, compile=False, progress=False)


def table() -> pd.DataFrame:
    """Thirty rows of a real, a positive and a count column, with holes; row 4 is all missing."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "real": rng.normal(size=30),
            "positive": np.exp(2 * rng.normal(size=30)),
            "count": pd.Series(rng.poisson(20, 30), dtype="Int64"),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    frame.iloc[4] = pd.NA
    return frame


def normal(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    scale = pyro.sample("scale", dist.HalfNormal(5.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


def slopes(x: Tensor, y: Tensor, group: Tensor, size: Tensor) -> None:
    """A plate besides the data's, sites with event dimensions, and constants per row and not."""
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("groups", 5):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(2), scale).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((x * slope[group]).sum(-1), size.sum()), obs=y)


def slopes_data() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 2, generator=noise), torch.randn(20, generator=noise)
    return {"x": x, "y": y, "group": torch.arange(20) % 5, "size": torch.ones(3)}


@pytest.fixture(scope="module")
def of_table() -> Fit:
    return quick(BayesianMVN(infer_schema(table())), table())


@pytest.fixture(scope="module")
def of_normal() -> Fit:
    noise = torch.Generator().manual_seed(0)
    return quick(normal, {"y": 2 + torch.randn(40, generator=noise, dtype=torch.float64)}, num_draws=250)


@pytest.fixture(scope="module")
def of_slopes() -> Fit:
    return quick(slopes, slopes_data())


def with_index(of_table: Fit, index: pd.Index) -> Fit:
    frame = of_table.problem.frame
    assert frame is not None
    return replace(of_table, problem=replace(of_table.problem, frame=frame.set_axis(index)))


def with_names(of_table: Fit, names: list[str | int]) -> Fit:
    schema, frame = of_table.schema, of_table.problem.frame
    assert schema is not None and frame is not None
    columns = zip(schema.columns, names, strict=True)
    pair = BayesianMVN(Schema(tuple(replace(column, name=name) for column, name in columns)))
    problem = replace(of_table.problem, pair=pair, frame=frame.set_axis(names, axis=1))
    return replace(of_table, problem=problem)


# Groups, dimensions, labels


def test_all_groups_of_a_table_and_their_dimensions(of_table: Fit):
    found = to_inference_data(of_table)
    assert is_export(found)
    dims = {group: {n: v.dims for n, v in found[group].data_vars.items()} for group in groups(found)}
    drawn = ("chain", "draw")
    vector, matrix, rows = (*drawn, "feature"), (*drawn, "feature", "feature_bis"), ("data", "feature")
    sites = dict.fromkeys(["location", "spread", "mean", "scale"], vector)
    sites |= dict.fromkeys(["correlation_cholesky", "correlation", "covariance"], matrix)
    names = ["lp", "energy", "acceptance_rate", "diverging", "step_size", "n_steps"]
    assert dims == {
        "posterior": sites,
        "sample_stats": dict.fromkeys(names, drawn),
        "log_likelihood": {"x": (*drawn, "data")},
        "posterior_predictive": {"x": (*drawn, *rows)},
        "prior": sites,
        "prior_predictive": {"x": (*drawn, *rows)},
        "observed_data": {"x": rows},
        "constant_data": {"mask": rows},
    }
    assert set(dims) == set(GROUPS)


def test_labels_of_a_table(of_table: Fit):
    frame = table().set_axis([f"row {i}" for i in range(30)])
    found = to_inference_data(with_index(of_table, frame.index))
    for group in ("posterior", "prior_predictive", "observed_data", "constant_data"):
        assert found[group]["feature"].values.tolist() == list(frame.columns)
    assert found.posterior["feature_bis"].values.tolist() == list(frame.columns)
    assert found.observed_data["data"].values.tolist() == frame.index.tolist()
    assert found.log_likelihood["data"].values.tolist() == frame.index.drop("row 4").tolist()
    sampled = of_table.samples["covariance"][2, 7, 0, 1].item()
    chosen = found.posterior["covariance"].sel(chain=2, draw=7, feature="real", feature_bis="positive")
    assert chosen.item() == sampled


def test_plates_name_axes_of_a_user_model(of_slopes: Fit):
    found = to_inference_data(of_slopes)
    assert found.posterior["slope"].dims == ("chain", "draw", "groups", "slope_dim_1")
    assert found.posterior["scale"].dims == ("chain", "draw", "scale_dim_0")
    assert found.log_likelihood["y"].dims == ("chain", "draw", "data")
    assert found.observed_data["y"].dims == ("data",)
    dims = {name: value.dims for name, value in found.constant_data.data_vars.items()}
    assert dims == {"x": ("data", "x_dim_1"), "group": ("data",)}
    np.testing.assert_array_equal(found.constant_data["group"], of_slopes.data["group"])
    np.testing.assert_array_equal(found.posterior["slope"], of_slopes.samples["slope"])


def test_a_model_without_plate():
    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        pyro.sample("y", dist.Normal(torch.zeros(6), scale).to_event(1), obs=y)

    found = to_inference_data(quick(model, {"y": torch.arange(6.0)}))
    assert groups(found) == set(GROUPS) - {"constant_data"}
    assert found.log_likelihood["y"].dims == ("chain", "draw")
    assert found.observed_data["y"].dims == ("y_dim_0",)


INDEXES: dict[str, tuple[pd.Index, list[Any]]] = {
    "repeated": (pd.Index([7] * 30), [7] * 30),
    "pairs": (pd.MultiIndex.from_product([["a", "b"], range(15)]), ["a, 0", "a, 1"]),
    "mixed": (pd.Index([1, "b", None] * 10), ["1", "b", "None"]),
    "dates": (pd.date_range("2024-01-01", periods=30), [np.datetime64("2024-01-01")]),
    "zoned": (pd.date_range("2024-01-01", periods=30, tz="UTC"), ["2024-01-01 00:00:00+00:00"]),
    "missing": (pd.Index([1.5, np.nan] * 15), ["1.5", "nan"]),
    "nullable": (pd.Index(range(1, 31), dtype="Int64"), [1, 2, 3]),
    "categories": (pd.CategoricalIndex(["u", "v"] * 15), ["u", "v"]),
}


@pytest.mark.parametrize("name", INDEXES)
def test_any_index_labels_rows_and_survives_a_file(name: str, of_table: Fit, tmp_path: Path):
    index, first = INDEXES[name]
    found = to_inference_data(with_index(of_table, index), ["observed_data", "log_likelihood"])
    assert list(found.observed_data["data"].values[: len(first)]) == first
    assert found.log_likelihood.sizes["data"] == 29
    assert_same(from_file(found, tmp_path), found)


@pytest.mark.parametrize("names", [["naïve β", "温度", "a/b, [0]"], [2, 0, 1], ["", 1, "1 "]], ids=str)
def test_any_column_name_labels_columns_and_survives_a_file(
    names: list[str | int], of_table: Fit, tmp_path: Path
):
    found = to_inference_data(with_names(of_table, names), ["posterior", "observed_data"])
    kept = names if {type(name) for name in names} == {int} else [str(name) for name in names]
    assert found.posterior["feature"].values.tolist() == kept
    assert_same(from_file(found, tmp_path), found)


def test_names_that_clash_with_dimensions_or_paths(tmp_path: Path):
    def model(data: Tensor, groups: Tensor) -> None:
        with pyro.plate("data", len(data)):
            pyro.sample("part/draw", dist.Normal(0.0, 1.0))
            pyro.sample("draw", dist.Normal(0.0, 1.0))
            pyro.sample("groups", dist.Normal(0.0, 1.0), obs=groups)
        with pyro.plate("groups", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = to_inference_data(quick(model, {"data": torch.arange(4.0), "groups": torch.ones(4)}))
    assert {n: v.dims[2:] for n, v in found.posterior.data_vars.items()} == {
        "part.draw": ("data",),
        "draw_values": ("data",),
        "z": ("groups_dim",),
    }
    assert found.constant_data["data_values"].dims == ("data",)
    assert_same(from_file(found, tmp_path), found)


# Values


def test_observed_data_are_the_table_with_its_holes(of_table: Fit):
    found = to_inference_data(of_table, ["observed_data", "constant_data"])
    np.testing.assert_array_equal(found.observed_data["x"], table().to_numpy(float, na_value=np.nan))
    np.testing.assert_array_equal(found.constant_data["mask"], table().notna())


def test_observed_data_of_tensors_come_in_the_units_of_the_schema(of_table: Fit):
    tensors = replace(of_table, problem=replace(of_table.problem, frame=None))
    found = to_inference_data(tensors, ["observed_data"]).observed_data["x"]
    # Undoing logs and scales rounds a few times: some units in the last place.
    np.testing.assert_allclose(found, table().to_numpy(float, na_value=np.nan), rtol=1e-13)


def test_log_likelihood_of_a_table_is_in_its_units(of_table: Fit):
    found = to_inference_data(of_table, ["log_likelihood"]).log_likelihood["x"]
    cells = table().to_numpy(float, na_value=np.nan)
    expected = np.empty((CHAINS, 3, 29))
    for chain in range(CHAINS):
        for draw in range(3):
            mean, covariance = (of_table.samples[name][chain, draw] for name in ("mean", "covariance"))
            rows = (row for row in cells if not np.isnan(row).all())
            expected[chain, draw] = [log_density(row, mean.numpy(), covariance.numpy()) for row in rows]
    # The covariance is rebuilt from its factor, of condition number below 100: well within 1e-10.
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-10, atol=1e-10)


def log_density(row: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """The density of the observed cells, the second of which is log-normal."""
    seen = ~np.isnan(row)
    log = np.log(row[1]) if seen[1] else 0.0
    encoded = np.array([row[0], log, row[2]])
    marginal = stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
    return float(marginal.logpdf(encoded[seen]) - log)


def test_log_likelihood_prior_and_jacobian_add_up_to_lp(of_normal: Fit):
    found = to_inference_data(of_normal, ["posterior", "sample_stats", "log_likelihood"])
    mean, scale = found.posterior["mean"], found.posterior["scale"]
    prior = stats.norm.logpdf(mean, 0, 10) + stats.halfnorm.logpdf(scale, scale=5)
    total = found.log_likelihood["y"].sum("data") + prior + np.log(scale)
    # Sums of 40 terms of a few nats in double precision.
    np.testing.assert_allclose(found.sample_stats["lp"], total, rtol=1e-12)


def test_predictions_of_a_table_are_in_its_units(of_table: Fit):
    found = to_inference_data(of_table, ["posterior", "posterior_predictive", "prior_predictive"])
    draws = found.posterior_predictive["x"]
    assert (draws.sel(feature="positive") > 0).all()
    assert (found.prior_predictive["x"].sel(feature="positive") > 0).all()
    counts = draws.sel(feature="count").mean("data")
    expected = found.posterior["mean"].sel(feature="count")
    sd = found.posterior["scale"].sel(feature="count")
    # The mean of 30 draws around each draw's own mean: 200 standard normals, beyond 5 once in 10,000 runs.
    assert (np.abs(counts - expected) / (sd / np.sqrt(30)) < 5).all()


def test_masks_of_a_user_model_become_holes():
    seen = torch.tensor([[True, False], [False, False], [True, True]])

    def model(y: Tensor, z: Tensor, w: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3), pyro.poutine.mask(mask=seen[:, 0]):
            pyro.sample("y", dist.Normal(mean.expand(2), 1.0).to_event(1), obs=y)
            pyro.sample("z", dist.Normal(mean.expand(2), 1.0).mask(seen).to_event(1), obs=z)
        pyro.sample("w", dist.Normal(mean.expand(2), 1.0).to_event(1).mask(torch.tensor(False)), obs=w)

    data = {"y": torch.ones(3, 2), "z": torch.ones(3, 2), "w": torch.ones(2)}
    found = to_inference_data(quick(model, data))
    holes = {name: np.isnan(value.values).tolist() for name, value in found.observed_data.items()}
    assert holes["y"] == [[False, False], [True, True], [False, False]]
    assert holes["z"] == [[False, True], [True, True], [False, False]]
    assert holes["w"] == [True, True]
    assert found.log_likelihood["data"].values.tolist() == [0, 2]


# Fewer draws, fewer groups


def test_max_draws_thins_every_group_evenly(of_table: Fit):
    found = to_inference_data(of_table, max_draws=5 * CHAINS + 3)
    kept = [0, 12, 24, 37, 49]  # of 50, five at equal distances, ends included (24.5 rounds to even)
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        assert found[group]["draw"].values.tolist() == kept
        assert found[group].sizes["chain"] == CHAINS
    np.testing.assert_array_equal(found.posterior["mean"], of_table.samples["mean"][:, kept])
    np.testing.assert_array_equal(found.sample_stats["lp"], of_table.sample_stats["lp"][:, kept])
    full = to_inference_data(of_table, ["log_likelihood"]).log_likelihood
    np.testing.assert_allclose(found.log_likelihood["x"], full["x"][:, kept], rtol=1e-12)
    assert found.prior.sizes["draw"] == found.prior_predictive.sizes["draw"] == 5 * CHAINS


def test_predictions_come_for_500_draws_that_are_in_the_posterior(of_normal: Fit):
    found = to_inference_data(of_normal, ["posterior", "posterior_predictive", "prior_predictive"])
    predicted = found.posterior_predictive
    assert dict(predicted.sizes) == {"chain": CHAINS, "draw": 125, "data": 40}
    assert found.prior_predictive.sizes["draw"] == 500
    matching = found.posterior.sel(draw=predicted["draw"])
    standardised = (predicted["y"] - matching["mean"]) / matching["scale"]
    # 20,000 standard normals: 5 standard errors are 0.036 for the mean and 0.025 for the sd.
    assert abs(float(standardised.mean())) < 0.036
    assert abs(float(standardised.std()) - 1) < 0.025


def test_too_few_draws_for_the_chains(of_table: Fit):
    with pytest.raises(ArgumentError, match="max_draws must be at least the number of chains: got 3 for 4"):
        to_inference_data(of_table, max_draws=3)


def test_groups_by_name(of_table: Fit):
    found = to_inference_data(of_table, ["observed_data", "posterior"])
    assert groups(found) == {"observed_data", "posterior"}


def test_unknown_group(of_table: Fit):
    with pytest.raises(ArgumentError, match=r"unknown groups \['likelihood'\]. choose from \['posterior', '"):
        to_inference_data(of_table, ["posterior", "likelihood"])


def test_a_large_log_likelihood_needs_to_be_asked_for(of_table: Fit, monkeypatch: pytest.MonkeyPatch):
    size = 8 * CHAINS * DRAWS * 30
    monkeypatch.setattr(export_groups, "MAX_LOG_LIKELIHOOD", size - 1)
    found = to_inference_data(of_table)
    assert "log_likelihood" not in found
    assert "would take 0.0 GB. ask for them by name" in found.attrs["log_likelihood_left_out"]
    assert "log_likelihood" in to_inference_data(of_table, ["log_likelihood"])
    monkeypatch.setattr(export_groups, "MAX_LOG_LIKELIHOOD", size)
    assert "log_likelihood" in to_inference_data(of_table)


def improper(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def weighed(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.factor("weight", -mean.abs())
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(improper, "ImproperUniform does not support sampling"), (weighed, r"pyro.factor sites \['weight'\]")],
)
def test_priors_that_cannot_be_drawn_from_leave_their_groups_out(model: Callable[..., None], reason: str):
    result = quick(model, {"y": torch.arange(5.0)})
    found = to_inference_data(result)
    assert groups(found) == set(GROUPS) - {"prior", "prior_predictive", "constant_data"}
    for group in ("prior", "prior_predictive"):
        with pytest.raises(ModelError, match=reason) as error:
            to_inference_data(result, [group])
        assert found.attrs[f"{group}_left_out"] == str(error.value)


def test_a_model_that_fails_leaves_what_needs_it_out(of_normal: Fit):
    def broken(y: Tensor) -> None:
        raise RuntimeError("no such file")

    found = to_inference_data(replace(of_normal, problem=replace(of_normal.problem, pair=as_pair(broken))))
    assert groups(found) == {"posterior", "sample_stats"}
    reasons = {name: text for name, text in found.attrs.items() if name.endswith("_left_out")}
    assert len(reasons) == len(GROUPS) - 2
    assert all("the model fails at" in reason and "no such file" in reason for reason in reasons.values())


# Attributes, files, ArviZ


def test_attributes_say_how_the_fit_was_made(of_table: Fit):
    attrs = to_inference_data(of_table, ["posterior"]).attrs
    assert attrs["inference_library"] == "pyrolatent"
    assert attrs["seed"] == 1
    assert attrs["method"] == "HMC(num_chains=4, num_warmup=50, num_draws=50, target_ess=None, path='rule')"
    assert attrs["rung"] == "vmap"
    assert attrs["wall_time"] == sum(of_table.info["seconds"].values())
    assert attrs["warnings"].splitlines() == list(of_table.warnings) != []
    assert attrs["torch_version"] == version("torch")
    assert attrs["arviz_version"] == az.__version__


def test_a_file_gives_back_everything(of_table: Fit, tmp_path: Path):
    quiet = replace(of_table, warnings=(), problem=replace(of_table.problem, seed=2**80))
    for result in (of_table, quiet):
        found = to_inference_data(result)
        assert_same(from_file(found, tmp_path), found)


def test_arviz_1_gets_a_tree_with_the_same_groups(of_table: Fit, tmp_path: Path):
    found = to_inference_data(of_table)
    datasets = {group: dataset(found, group) for group in groups(found)}
    tree = wrap(datasets, describe(of_table), arviz="1.2.0")
    assert isinstance(tree, xr.DataTree)
    assert set(tree.children) == set(GROUPS)
    assert tree.attrs == describe(of_table)
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), tree)
    assert is_export(wrap(datasets, {}))


def test_arviz_works_on_the_export(of_normal: Fit):
    found = to_inference_data(of_normal)
    loo = az.loo(found)
    assert loo.n_data_points == 40
    # Two parameters, each counting for about one: Gelman, Hwang, Vehtari (2014), section 3.
    assert 1 < effective_parameters(loo) < 3
    assert list(az.summary(found).index) == ["mean", "scale"]
    assert traced(found) == {"mean", "scale"}


def test_arviz_works_on_the_export_of_a_table(of_table: Fit):
    found = to_inference_data(of_table)
    with warnings.catch_warnings():
        # 200 draws of 30 rows: leave-one-out may say that it is unsure.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
        assert az.loo(found).n_data_points == 29
    assert "covariance[real, count]" in az.summary(found, var_names=["mean", "scale", "covariance"]).index
    assert traced(found, ["mean"]) == {"mean"}


def test_export_leaves_the_random_state(of_table: Fit):
    before = torch.get_rng_state()
    first = to_inference_data(of_table)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert_same(to_inference_data(of_table), first)


# What other methods leave behind


def test_importance_weights_are_statistics_of_the_proposal(of_normal: Fit, tmp_path: Path):
    raw, smoothed = torch.randn(2_000), torch.randn(2_000)
    weighed = replace(of_normal, sample_stats={}, weights=Weights(raw, smoothed, -np.inf))
    found = to_inference_data(weighed, max_draws=CHAINS)
    stats = dataset(found, "sample_stats")
    assert {name: values.dims for name, values in stats.data_vars.items()} == {
        "log_weight": ("proposal",),
        "smoothed_log_weight": ("proposal",),
    }
    np.testing.assert_array_equal(stats["log_weight"], raw)
    np.testing.assert_array_equal(stats["smoothed_log_weight"], smoothed)
    assert found.attrs["pareto_k"] == -np.inf
    assert_same(from_file(found, tmp_path), found)


def test_losses_are_statistics_of_the_training(of_normal: Fit, tmp_path: Path):
    losses = {"train": torch.rand(3, 40), "validation": torch.rand(3, 5)}
    found = to_inference_data(replace(of_normal, losses=losses), ["sample_stats"])
    stats = dataset(found, "sample_stats")
    assert stats["loss"].dims == ("refit", "step") and stats["validation_loss"].dims == ("refit", "check")
    np.testing.assert_array_equal(stats["loss"], losses["train"])
    np.testing.assert_array_equal(stats["validation_loss"], losses["validation"])
    assert stats["lp"].dims == ("chain", "draw")
    assert_same(from_file(found, tmp_path), found)


def test_methods_are_written_as_they_would_be_called(of_normal: Fit):
    settings = SVI(objective=loss, optimizer=torch.optim.SGD, num_steps=7)
    text = to_inference_data(replace(of_normal, method=settings), ["posterior"]).attrs["method"]
    assert text.startswith("SVI(objective=loss, num_steps=7, lr=0.001, batch_size=None, optimizer=SGD,")


def loss(pair: Any, data: Any, noise: Any, step: Any) -> None:
    """An objective of one's own."""


def decoder(y: Tensor) -> None:
    """A latent for each row, and learnt weights."""
    weight = pyro.param("weight", torch.tensor(1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(weight * z, 0.5), obs=y)


def encoder(y: Tensor) -> None:
    slope, scale = (pyro.param(name, torch.tensor(0.5)) for name in ("slope", "log_scale"))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, scale.exp()))


@pytest.fixture(scope="module")
def of_decoder() -> Fit:
    y = torch.linspace(-2, 2, 15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(decoder, {"y": y}, SVI(num_steps=50, num_draws=30), guide=encoder, seed=1, progress=False)


def test_a_fit_without_draws_has_no_posterior_and_no_log_likelihood(of_decoder: Fit, tmp_path: Path):
    assert not of_decoder.samples
    found = to_inference_data(of_decoder)
    assert groups(found) == set(GROUPS) - {"posterior", "log_likelihood", "constant_data"}
    assert "the fit has no draws: all that its model leaves open" in found.attrs["posterior_left_out"]
    assert "learnt weights are point estimates" in found.attrs["log_likelihood_left_out"]
    assert found.posterior_predictive["y"].dims == ("chain", "draw", "data")
    assert dict(found.prior_predictive["y"].sizes) == dict(found.posterior_predictive["y"].sizes)
    assert found.prior["z"].dims == ("chain", "draw", "data")
    assert set(dataset(found, "sample_stats").data_vars) == {"loss"}
    assert_same(from_file(found, tmp_path), found)
    for group in ("posterior", "log_likelihood"):
        with pytest.raises(ModelError, match=r"leaves open|point estimates"):
            to_inference_data(of_decoder, [group])


def test_predictions_of_a_fit_without_draws_follow_its_guide(of_decoder: Fit):
    drawn = to_inference_data(of_decoder, ["posterior_predictive"]).posterior_predictive["y"]
    # z is drawn given each row, so predictions rise with what was observed.
    assert np.corrcoef(drawn.mean(("chain", "draw")), of_decoder.data["y"])[0, 1] > 0.9
