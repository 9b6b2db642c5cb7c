"""EM where it is hard: edges of what is possible, spikes, copies that end, orders, and data far from 0."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.infer.em import EM
from pyrolatent.ordered import Ordered
from tests import em_models as models

FLOAT = torch.float64
NOT_NORMAL = "The likelihood is not like a normal around its peak in"


def quiet(model: Any, data: Any, method: EM | None = None, **settings: Any) -> pyl.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return pyl.fit(model, data, method or EM(), **{"seed": 0, "progress": False, **settings})


def normals(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=models.generator(seed), dtype=FLOAT)


# Edges


def share(x: Tensor) -> None:
    w = pyro.sample("w", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(w)).long()
        pyro.sample("x", dist.Normal(torch.tensor([0.0, 2.0])[z], 1.0), obs=x)


def half(x: Tensor) -> None:
    a = pyro.sample("a", dist.HalfNormal(5.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a, 1.0), obs=x)


def bounded(x: Tensor) -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a, 1.0), obs=x)


EDGES: dict[str, tuple[Callable[..., None], Tensor, str, float]] = {
    "share": (share, normals(200) - 0.5, "w", 0.0),
    "half line": (half, normals(50) - 2.0, "a", 0.0),
    "interval": (bounded, normals(50) + 3.0, "a", 2.0),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_is_reached_and_told(name: str) -> None:
    model, x, site, edge = EDGES[name]
    found = quiet(model, {"x": x})
    centre = edge if site == "a" else 2 * edge
    exact = norm.logpdf(x.numpy(), centre).sum()
    assert found.info["log_likelihood"] == pytest.approx(exact, abs=1e-4)
    assert f"{NOT_NORMAL} site {site!r}" in " ".join(found.warnings)
    assert found.samples[site].median() == pytest.approx(edge, abs=1e-3)
    assert found.samples[site].isfinite().all()


def test_what_separates_yes_from_no_is_told() -> None:
    def logistic(x: Tensor, y: Tensor) -> None:
        a, b = pyro.sample("a", dist.Normal(0.0, 5.0)), pyro.sample("b", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=a + b * x), obs=y)

    x = normals(60)
    found = quiet(logistic, {"x": x, "y": (x > 0).double()})
    assert f"{NOT_NORMAL} site" in " ".join(found.warnings)
    assert "'b'" in " ".join(found.warnings)


def test_an_empty_cell_has_the_mode_of_its_prior_and_data() -> None:
    def conversions(x: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(torch.full((2,), 5.0), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p[(torch.arange(len(x)) >= 200).long()]), obs=x)

    x = torch.zeros(400, dtype=FLOAT)
    x[200:203] = 1.0
    found = quiet(conversions, {"x": x}, EM(penalised=True))
    mode = found.state["position"].sigmoid()
    torch.testing.assert_close(mode, torch.tensor([4 / 208, 7 / 208], dtype=FLOAT), rtol=1e-6, atol=0)
    exact = sum(k * math.log(p) + (200 - k) * math.log1p(-p) for k, p in ((0, 4 / 208), (3, 7 / 208)))
    assert found.info["log_likelihood"] == pytest.approx(exact, abs=1e-6)  # without the prior
    assert found.warnings == ()


# Copies that end


def clamped(x: Tensor) -> None:
    location, spread = (
        pyro.sample("location", dist.Normal(0.0, 10.0)),
        pyro.sample("spread", dist.HalfNormal(5.0)),
    )
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(location.clamp(max=3.0), spread), obs=x)


def test_a_parameter_that_is_a_copy_here_and_not_there_is_no_copy() -> None:
    x = 10 + 0.1 * normals(120)
    found = quiet(clamped, {"x": x})
    spread = float((x - 3).square().mean().sqrt())
    assert found.info["log_likelihood"] == pytest.approx(norm.logpdf(x.numpy(), 3, spread).sum(), abs=1e-4)
    assert f"{NOT_NORMAL} site 'location'" in " ".join(found.warnings)


def test_a_floor_of_scales_is_kept() -> None:
    def floored(x: Tensor) -> None:
        weights = models.shares(2)
        with pyro.plate("component", 2):
            location = pyro.sample("location", dist.Normal(0.0, 10.0))
            spread = pyro.sample("spread", dist.HalfNormal(10.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(location[z], spread[z].clamp(min=0.1)), obs=x)

    x = torch.cat([0.02 * normals(100), 3 + normals(100, seed=1)])
    numbers = x.numpy()

    def height(p: Any) -> float:
        parts = [
            norm.logpdf(numbers, p[0], 0.1) + np.log(p[1]),
            norm.logpdf(numbers, p[2], p[3]) + np.log1p(-p[1]),
        ]
        return -float(np.logaddexp(*parts).sum())

    bounds = [(-1, 1), (0.01, 0.99), (1, 5), (0.2, 5)]
    peer = minimize(height, [0.0, 0.5, 3.0, 1.0], bounds=bounds, method="L-BFGS-B")
    assert quiet(floored, {"x": x}).info["log_likelihood"] == pytest.approx(-peer.fun, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_larger_of_two_is_no_copy_of_either(seed: int) -> None:
    def larger(x: Tensor, y: Tensor) -> None:
        a, b = pyro.sample("a", dist.Normal(0.0, 5.0)), pyro.sample("b", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.maximum(a, b), 1.0), obs=x)
            pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    x, y = normals(60) + 1.0, normals(60, seed=1) + 2.5
    both = torch.cat([x, y])  # the best a is below b
    exact = norm.logpdf(both.numpy(), float(both.mean())).sum()
    found = quiet(larger, {"x": x, "y": y}, seed=seed)
    assert found.info["log_likelihood"] == pytest.approx(exact, abs=1e-4)


# Spikes


def test_a_narrow_component_of_many_rows_is_no_spike() -> None:
    wide = [1_500 * normals(200, seed=seed) for seed in (1, 2)]
    x = torch.cat([normals(60), wide[0] - 5_000, wide[1] + 5_000])
    found = quiet(lambda x: models.normal(x, 3), {"x": x})
    peer = GaussianMixture(3, tol=1e-12, max_iter=5_000, n_init=20, random_state=0, reg_covar=1e-9)
    assert (
        found.info["log_likelihood"] >= peer.fit(x[:, None].numpy()).score(x[:, None].numpy()) * len(x) - 1e-4
    )
    assert found.warnings == ()


def test_columns_of_other_units_are_no_spikes() -> None:
    def table(x: Tensor) -> None:
        location = pyro.sample("location", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(5.0 * torch.ones(2)).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(location, spread).to_event(1), obs=x)

    x = normals(200, 2) * torch.tensor([10.0, 50_000.0])
    found = quiet(table, {"x": x})
    assert found.warnings == ()
    errors = found.state["covariance"].diagonal().sqrt()
    expected = torch.cat([x.std(0, correction=0) / math.sqrt(200), torch.full((2,), 400**-0.5)])
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=0, check_dtype=False)


@pytest.mark.parametrize("x", [torch.full((20,), 3.0), torch.tensor([1.0, 2.0, 5.0])], ids=["equal", "few"])
def test_where_all_starts_end_in_spikes_there_is_no_result(x: Tensor) -> None:
    with pytest.raises(ModelError, match=r"every start of EM ended in a spike.*take fewer components"):
        quiet(lambda x: models.normal(x, 5), {"x": x})


def test_whole_numbers_are_numbers() -> None:
    def plain(x: Tensor) -> None:
        location, spread = (
            pyro.sample("location", dist.Normal(0.0, 9.0)),
            pyro.sample("spread", dist.HalfNormal(9.0)),
        )
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(location, spread), obs=x)

    found = quiet(plain, {"x": torch.arange(9)})
    assert float(found.state["position"][0]) == pytest.approx(4.0)


# Orders


def test_components_with_labels_are_not_exchangeable() -> None:
    def labelled(x: Tensor, label: Tensor) -> None:
        weights, location = models.shares(2), pyro.sample("location", Ordered(dist.Normal(0.0, 10.0), 2))
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(weights))
            pyro.sample("label", dist.Categorical(torch.tensor([[0.9, 0.1], [0.1, 0.9]])[a]), obs=label)
            pyro.sample("x", dist.Normal(location[a], 1.0), obs=x)

    # label 1 goes with low values, against the order, so that the best locations are equal
    x = torch.cat([normals(80), 1.5 + normals(20, seed=1)])
    label = (torch.arange(100) < 80).long()
    found = quiet(labelled, {"x": x, "label": label})
    exact = norm.logpdf(x.numpy(), float(x.mean())).sum() + 80 * math.log(0.8) + 20 * math.log(0.2)
    assert found.info["log_likelihood"] == pytest.approx(exact, abs=1e-2)


def test_an_order_beside_another_discrete_site() -> None:
    def two(x: Tensor, y: Tensor) -> None:
        weights = models.shares(2)
        location = pyro.sample("location", Ordered(dist.Normal(0.0, 10.0), 2))
        other = pyro.sample("other", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(weights))
            b = pyro.sample("b", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(location[a], 1.0), obs=x)
            pyro.sample("y", dist.Normal(other[b], 1.0), obs=y)

    x = torch.cat([normals(100), 5 + normals(100, seed=1)])
    for seed in (0, 1):
        found = quiet(two, {"x": x, "y": x.flip(0)}, seed=seed)
        low, high = found.samples["location"].mean((0, 1))
        assert float(low) == pytest.approx(0.0, abs=0.4)
        assert float(high) == pytest.approx(5.0, abs=0.4)


# Far from 0


@pytest.mark.parametrize(("shift", "unit"), [(0.0, 1.0), (1e5, 1.0), (0.0, 1e4), (0.0, 1e-4)])
def test_starts_are_where_the_data_are(shift: float, unit: float) -> None:
    x = models.normal_data()["x"]
    near = quiet(models.log_spreads, {"x": x}).info["log_likelihood"]
    far = quiet(models.log_spreads, {"x": shift + unit * x})
    assert far.info["log_likelihood"] == pytest.approx(near - len(x) * math.log(unit), abs=1e-3)
    assert far.warnings == ()


def test_a_regression_on_years() -> None:
    def line(x: Tensor, y: Tensor) -> None:
        a, b = pyro.sample("a", dist.Normal(0.0, 10.0)), pyro.sample("b", dist.Normal(0.0, 10.0))
        spread = pyro.sample("spread", dist.HalfNormal(5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(a + b * x, spread), obs=y)

    x = 1980 + 20 * torch.rand(100, generator=models.generator(), dtype=FLOAT)
    y = 3 + 0.5 * (x - 1990) + 2 * normals(100)
    design = np.stack([np.ones(100), x.numpy()], 1)
    (a, b), (squares,), *_ = np.linalg.lstsq(design, y.numpy())
    found = quiet(line, {"x": x, "y": y})
    torch.testing.assert_close(found.state["position"][:2], torch.tensor([a, b]), rtol=1e-5, atol=0)
    covariance = squares / 100 * np.linalg.inv(design.T @ design)
    torch.testing.assert_close(
        found.state["covariance"][:2, :2], torch.from_numpy(covariance), rtol=1e-3, atol=0
    )


def test_a_mixture_is_held_against_the_best_of_its_components() -> None:
    def broad_first(x: Tensor) -> None:
        weights = models.shares(2)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(0.0, torch.tensor([3.0, 1.0])[z]), obs=x)

    found = quiet(broad_first, {"x": normals(200)})
    assert found.info["nats_over_one_component"] < 2.0
    assert "nats more likely than a single component" in " ".join(found.warnings)
