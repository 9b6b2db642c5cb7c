import warnings

import arviz as az
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.errors import FitWarning
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.infer.hmc import HMC
from pyrolatent.models import BayesianMVN
from pyrolatent.result import Fit
from pyrolatent.schema import infer_schema
from pyrolatent.summary import summary

COLUMNS = ["mean", "sd", "q5", "q95", "mcse_mean", "ess", "rhat"]


def schools(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        theta = pyro.sample("theta", dist.Normal(mean, 1.0))
        pyro.deterministic("endless", torch.where(theta > 0, torch.inf, theta))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


@pytest.fixture(scope="module")
def of_schools() -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(schools, {"y": torch.arange(3.0)}, HMC(4, 50, 100), seed=1, compile=False, progress=False)


@pytest.fixture(scope="module")
def of_table() -> Fit:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=["JW1", "naïve β", "a,b"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        pair = BayesianMVN(infer_schema(frame))
        return fit(pair, frame, HMC(4, 50, 100), seed=1, compile=False, progress=False)


def test_values_are_those_of_the_draws(of_schools: Fit):
    found = summary(of_schools)
    assert list(found.columns) == COLUMNS
    draws = of_schools.samples["theta"][..., 1].numpy()
    sd, size = draws.std(ddof=1), min(az.ess(draws, method="mean"), draws.size)
    expected = [draws.mean(), sd, *np.quantile(draws, [0.05, 0.95]), sd / np.sqrt(size)]
    row = found.loc["theta[1]"]
    np.testing.assert_allclose(row[:5].to_numpy(float), expected, rtol=1e-10)
    assert row["ess"] == of_schools.diagnostics["theta"]["ess"][1]
    assert row["rhat"] == of_schools.diagnostics["theta"]["rhat"][1]


def test_rows_are_named_by_site_and_position(of_schools: Fit):
    assert list(summary(of_schools).index) == [
        "mean",
        *[f"theta[{i}]" for i in range(3)],
        *[f"endless[{i}]" for i in range(3)],
    ]


def test_rows_of_a_table_are_named_by_columns_as_in_the_export(of_table: Fit):
    found = summary(of_table)
    assert {"mean[JW1]", "covariance[naïve β, a,b]"} <= set(found.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ArviZ divides by the zero variance of constants
        exported = az.summary(to_inference_data(of_table, ["posterior"]))
    assert list(found.index) == list(exported.index)


def test_constants_have_no_ess_and_no_rhat(of_table: Fit):
    found = summary(of_table)
    for name in of_table.problem.frame.columns:
        row = found.loc[f"correlation[{name}, {name}]"]
        # 1 up to the rounding of a row's squares.
        assert abs(row["mean"] - 1) < 1e-14
        assert row["sd"] < 1e-14
        assert row[["mcse_mean", "ess", "rhat"]].isna().all()
    assert found.loc[found.index.str.startswith("mean["), COLUMNS].notna().all(axis=None)


def test_draws_that_are_infinite_are_shown_as_they_are(of_schools: Fit):
    row = summary(of_schools).loc["endless[2]"]
    assert row["mean"] == np.inf
    assert row[["sd", "ess", "rhat"]].isna().all()
