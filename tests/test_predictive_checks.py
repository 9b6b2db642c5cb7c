import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent import predictive_checks as module
from pyrolatent.errors import DataError, FitWarning, ModelError
from pyrolatent.fit import fit
from pyrolatent.infer.hmc import HMC
from pyrolatent.pair import FunctionPair
from pyrolatent.predict import posterior_predictive
from pyrolatent.predictive_checks import Checks, compared, predictive_checks
from pyrolatent.result import Fit
from pyrolatent.saved_parts import MissingData, MissingModel
from pyrolatent.shares import Values
from tests.small_fits import function_fit, holed_table, table_fit


def quick(model: Callable[..., None], data: Mapping[str, Any]) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(model, data, HMC(4, 20, 20), seed=1, compile=False, progress=False)


def values(result: Fit, draws: int = 5) -> dict[str, Values]:
    """What is compared, by name."""
    return {found.name: found for found in compared(result, posterior_predictive(result, draws), {})}


def names(found: Checks) -> list[str]:
    return [check.name for check in found.checks]


# Tables


def test_columns_of_a_table_are_compared_in_its_units_where_they_are_observed() -> None:
    result, table = table_fit(), holed_table()
    found = values(result)
    assert list(found) == [str(name) for name in result.schema.names]
    x = posterior_predictive(result, 5)["x"]
    for column in result.schema.modelled:
        seen = table[column.name].notna().to_numpy()
        np.testing.assert_array_equal(found[column.name].observed, table[column.name].dropna())
        decoded = [result.schema.decode(draw, table.index)[column.name][seen] for draw in x]
        np.testing.assert_array_equal(found[column.name].posterior, decoded)


def test_labels_are_compared_as_codes() -> None:
    assert module.codes(holed_table()["visits"].dropna().head(2), ()).dtype == np.float64
    labels = ("no", "yes")
    series = holed_table()["visits"].isna().map({True: "yes", False: "no"})
    np.testing.assert_array_equal(module.codes(series, labels), holed_table()["visits"].isna())


def test_the_prior_is_compared_as_well() -> None:
    found = predictive_checks(table_fit())
    assert found.no_prior == "" and found.num_draws == 40  # all draws of the fit
    assert all(check.prior.shape == (100, len(check.edges) - 1) for check in found.checks)


# Sites


def test_a_site_is_compared_entry_by_entry() -> None:
    result = function_fit()
    found = values(result)["y"]
    np.testing.assert_array_equal(found.observed, result.data["y"])
    np.testing.assert_array_equal(found.posterior, posterior_predictive(result, 5)["y"])


def parts(y: Tensor, image: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, torch.ones(3)).mask(y != 1).to_event(1), obs=y)
        pyro.sample("image", dist.Normal(mean, torch.ones(20)).to_event(1), obs=image)
    for k in range(3):
        pyro.sample(f"late_{k}", dist.Normal(mean, 1.0), obs=y[k, 0])


def test_parts_of_a_row_are_compared_on_their_own_if_they_are_few() -> None:
    y = torch.arange(12.0).reshape(4, 3)
    result = quick(parts, {"y": y, "image": torch.ones(4, 20)})
    found, drawn = values(result), posterior_predictive(result, 5)
    assert list(found) == ["y[0]", "y[1]", "y[2]", "image", "late_*"]
    assert found["y[1]"].observed.tolist() == [4, 7, 10]  # 1 is masked
    np.testing.assert_array_equal(found["y[1]"].posterior, drawn["y"][:, 1:, 1])
    assert found["image"].observed.shape == (80,)
    np.testing.assert_array_equal(found["image"].posterior, drawn["image"].flatten(1))


def test_single_numbers_with_numbered_names_are_compared_together() -> None:
    result = quick(parts, {"y": torch.arange(12.0).reshape(4, 3), "image": torch.ones(4, 20)})
    found, drawn = values(result)["late_*"], posterior_predictive(result, 5)
    assert found.observed.tolist() == [0, 3, 6]
    np.testing.assert_array_equal(found.posterior, torch.stack([drawn[f"late_{k}"] for k in range(3)], 1))


def test_a_site_of_which_nothing_counts_is_left_out() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0).mask(torch.tensor(False)), obs=y)
            pyro.sample("z", dist.Normal(mean, 1.0), obs=y)

    assert names(predictive_checks(quick(model, {"y": torch.arange(4.0)}))) == ["z"]


# What can go wrong


def test_an_improper_prior_is_left_out_with_the_reason() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(constraints.real, (), ()))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    found = predictive_checks(quick(model, {"y": torch.arange(4.0)}))
    assert names(found) == ["y"] and found.checks[0].prior is None
    assert "ImproperUniform does not support sampling" in found.no_prior


def test_factors_leave_the_prior_out() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.factor("weight", -mean.abs())
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    found = predictive_checks(quick(model, {"y": torch.arange(4.0)}))
    assert "pyro.factor sites ['weight']" in found.no_prior


def test_a_fit_without_its_model_or_its_data_says_so() -> None:
    result = function_fit()
    without = replace(result.problem, pair=MissingModel("line", None))
    with pytest.raises(ModelError, match="the saved fit does not hold its model"):
        predictive_checks(replace(result, problem=without))
    with pytest.raises(DataError, match="saved without its data"):
        predictive_checks(replace(result, problem=replace(result.problem, data=MissingData())))


def test_a_model_that_fails_says_so() -> None:
    def broken(**data: Any) -> None:
        raise RuntimeError("no such file")

    problem = replace(function_fit().problem, pair=FunctionPair(broken))
    with pytest.raises(ModelError, match="the model fails at posterior draws: no such file"):
        predictive_checks(replace(function_fit(), problem=problem))


def test_large_sites_get_fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrolatent.groups.PREDICTIVE_NUMBERS", 3 * 120)  # 40 rows of 3 columns
    found = predictive_checks(table_fit())
    assert found.num_draws == 3
    assert {check.prior.shape[0] for check in found.checks} == {3}


def test_checks_leave_the_random_state() -> None:
    before = torch.get_rng_state()
    first = predictive_checks(table_fit())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    for one, other in zip(first.checks, predictive_checks(table_fit()).checks, strict=True):
        np.testing.assert_array_equal(one.posterior, other.posterior)
