import base64
import sys
import types
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent import model_graph
from pyrolatent.model_graph import SiteRow, drawn_graph, site_rows
from pyrolatent.pictures import graph
from pyrolatent.saved_parts import MissingData, MissingModel
from tests.small_fits import function_fit, table_fit
from tests.test_predictive_checks import quick


def slopes(x: Tensor, y: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2)).to_event(1))
    offset = pyro.sample("offset", dist.ImproperUniform(constraints.real, (), ()))
    pyro.factor("offset_prior", -(offset**2))
    with pyro.plate("groups", 5):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(2), scale).to_event(1))
    mean = pyro.deterministic("mean", (x * slope).sum(-1) + offset)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0).mask(y > 0), obs=y)


def test_every_site_has_its_row() -> None:
    data = {"x": torch.ones(5, 2), "y": torch.arange(5.0)}
    assert site_rows(quick(slopes, data)) == [
        SiteRow("scale", "latent", "HalfNormal", (2,), (), ()),
        SiteRow("offset", "latent", "ImproperUniform", (), (), ()),
        SiteRow("slope", "latent", "Normal", (5, 2), ("groups",), ("scale",)),
        SiteRow("mean", "deterministic", "", (5,), (), ("offset", "slope")),
        SiteRow("y", "observed", "Normal", (5,), ("data",), ("mean",)),
        SiteRow("offset_prior", "factor"),
    ]


def test_a_table_has_its_sites() -> None:
    rows = {row.name: row for row in site_rows(table_fit())}
    assert rows["x"] == SiteRow(
        "x", "observed", "IncompleteMVN", (40, 3), ("data",), ("location", "spread", "correlation_cholesky")
    )
    assert rows["covariance"].parents == ("scale", "correlation")


@pytest.mark.parametrize("change", [{"pair": MissingModel("line", None)}, {"data": MissingData()}])
def test_without_model_or_data_there_is_what_was_stored(change: dict[str, Any]) -> None:
    result = function_fit()
    rows = site_rows(replace(result, problem=replace(result.problem, **change)))
    whole = site_rows(result)
    assert [(r.name, r.role, r.shape, r.plates) for r in rows] == [
        (r.name, r.role, r.shape, r.plates) for r in whole
    ]
    assert {row.distribution for row in rows} == {""} and {row.parents for row in rows} == {()}


def test_a_model_that_cannot_be_followed_keeps_its_distributions() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        assert type(mean) is Tensor or mean.requires_grad  # not one that carries the names of sites
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    rows = site_rows(quick(model, {"y": torch.ones(3)}))
    assert [(row.distribution, row.parents) for row in rows] == [("Normal", ()), ("Normal", ())]


# The picture


class FakeGraph:
    def pipe(self, format: str, encoding: str) -> str:
        assert (format, encoding) == ("svg", "utf-8")
        return '<?xml version="1.0"?>\n<svg width="144pt" height="72pt"></svg>'


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """As if `graphviz` and `dot` were there; what `render_model` was called with."""
    called: dict[str, Any] = {}

    def render(model: Any, args: tuple[Any, ...], data: dict[str, Any], **settings: Any) -> FakeGraph:
        called.update(model=model, data=data, **settings)
        model(**data)
        return FakeGraph()

    monkeypatch.setattr(model_graph, "find_spec", lambda name: types.SimpleNamespace(name=name))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(pyro, "render_model", render)
    return called


def test_the_graph_is_drawn_where_that_is_possible(installed: dict[str, Any]) -> None:
    result = function_fit()
    picture = graph(result, site_rows(result))
    assert picture is not None
    assert picture.width == 192  # 144 points are two inches
    assert "mean depends on a/slope; y depends on noise, mean" in picture.words
    svg = base64.b64decode(picture.uri.removeprefix("data:image/svg+xml;base64,")).decode()
    assert svg.endswith("</svg>")
    assert installed["data"] == dict(result.data) and installed["render_deterministic"]


def test_a_graph_with_too_many_sites_is_not_drawn(installed: dict[str, Any]) -> None:
    assert drawn_graph(function_fit(), 41) is None
    assert installed == {}


def test_a_graph_that_cannot_be_drawn_is_left_out(
    installed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overlapping(*args: Any, **settings: Any) -> None:
        raise NotImplementedError("overlapping plates")

    monkeypatch.setattr(pyro, "render_model", overlapping)
    assert drawn_graph(function_fit(), 4) is None


@pytest.mark.parametrize("absent", ["graphviz", "dot"])
def test_nothing_is_drawn_without_package_or_program(
    absent: str, installed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if absent == "graphviz":
        monkeypatch.setattr(model_graph, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr("shutil.which", lambda name: None)
    assert drawn_graph(function_fit(), 4) is None
    assert installed == {}


def test_pyro_draws_the_graph() -> None:
    pytest.importorskip("graphviz", reason="the Python package graphviz is not installed")
    if model_graph.shutil.which("dot") is None:
        pytest.skip("the program dot is not installed")
    for result in (function_fit(), table_fit()):
        svg = drawn_graph(result, 8)
        assert svg is not None and all(f">{name}<" in svg for name in result.samples)
    assert "graphviz" in sys.modules
