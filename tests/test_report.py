import base64
import io
import math
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent.cells import cell_table, coverage
from pyrolatent.errors import ArgumentError, DataError, FitWarning, StoreError
from pyrolatent.fit import fit
from pyrolatent.imputations import Imputations
from pyrolatent.infer.svi import SVI
from pyrolatent.pictures import pairwise_correlation
from pyrolatent.predictive_checks import predictive_checks
from pyrolatent.report import DASH, number, report
from pyrolatent.result import Fit, Weights
from pyrolatent.store import load, save
from pyrolatent.summary import summary
from tests.small_fits import completed, full_table, function_fit, holed_table, line, table_fit


class Page(HTMLParser):
    """What a reader of the page gets: its headings, its text, its pictures and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.text: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.sources += re.findall(r"url\(|@import", data)
        elif data.strip():
            self.text.append(" ".join(data.split()))
            if self.open[-1] == "h2":
                self.headings.append(data)

    @property
    def words(self) -> str:
        return " ".join(self.text)


@pytest.fixture(scope="module")
def imputations() -> Imputations:
    return completed(table_fit())


@pytest.fixture(scope="module")
def page(imputations: Imputations) -> Page:
    return Page(report(table_fit(), imputations=imputations, truth=full_table()))


def test_the_page_tells_all_there_is_to_tell(page: Page) -> None:
    sections = ["What was fitted", "Columns", "Model", "Summary", "Prior and posterior predictive"]
    assert page.headings == [*sections, "Correlations", "Completed cells", "Trace"]
    missing = 100 * holed_table()[list(table_fit().schema.names)].isna().to_numpy().mean()
    assert f"40 rows, 3 modelled columns, {missing:.1f} % of their cells missing" in page.words
    told = ["BayesianMVN(eta=2.0, standardise=True)", repr(table_fit().method), "float64 on cpu", "rung vmap"]
    told += [f"{name} {version}" for name, version in table_fit().info["versions"].items()]
    assert [words for words in told if words not in page.words] == []


def test_warnings_come_before_everything_else(page: Page) -> None:
    result = table_fit()
    assert len(result.warnings) >= 2  # it is too short on purpose
    rounding = "Imputations of ['visits'] are numbers rounded into the observed range."
    places = [page.words.index(words) for words in (*result.warnings, rounding, page.headings[0])]
    assert places == sorted(places)
    good = Page(report(replace(result, warnings=())))
    assert "No warnings" in good.words and "Weaker than it looks" not in good.words


def test_the_page_needs_no_other_file(page: Page) -> None:
    # Columns predicted, maps, columns with holes, trace.
    assert len(page.sources) == len(page.pictures) == 3 + 2 + 3 + 1
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for picture in page.pictures:
        image = Image.open(io.BytesIO(base64.b64decode((picture["src"] or "").split(",")[1])))
        image.load()
        assert image.format == "PNG" and image.width > int(picture["width"] or 0) > 300


def test_names_from_the_table_are_text(page: Page) -> None:
    assert "<b>height</b> & more" in page.text
    source = report(table_fit())
    assert "&lt;b&gt;height" in source and "<b>height" not in source
    assert [picture["alt"] for picture in page.pictures[5:8]] == [
        f"intervals of missing cells of {name}" for name in table_fit().schema.names
    ]


def test_the_summary_is_that_of_the_fit(page: Page) -> None:
    row = summary(table_fit()).loc["mean[$weight$]"]
    start = page.text.index("mean[$weight$]")
    values = [number(row["mean"]), number(row["sd"], ".3g"), number(row["q5"]), number(row["q95"])]
    values += [number(row["mcse_mean"], ".2g"), number(row["ess"], ",.0f"), number(row["rhat"], ".3f")]
    assert page.text[start + 1 : start + 8] == values
    diagonal = page.text.index("correlation[visits, visits]")
    assert page.text[diagonal + 1 : diagonal + 8] == ["1", "0", "1", "1", DASH, DASH, DASH]


def test_residuals_are_fitted_minus_observed_correlations(page: Page) -> None:
    holes = holed_table()[list(table_fit().schema.names)].astype("float64")
    observed = np.corrcoef(holes.dropna(subset=["$weight$", "visits"])[["$weight$", "visits"]].T)[0, 1]
    np.testing.assert_allclose(pairwise_correlation(table_fit())[1, 2], observed, rtol=1e-12)
    fitted = table_fit().samples["correlation"].mean((0, 1)).numpy()
    left = np.abs(fitted - holes.corr().to_numpy())[np.triu_indices(3, k=1)]
    assert f"Mean absolute residual {left.mean():.4f}, largest {left.max():.3f}." in page.words


def test_completed_cells_are_counted(page: Page, imputations: Imputations) -> None:
    cells = cell_table(imputations, truth=full_table())
    assert f"of {len(cells)} missing cells, in 3 of the 3 columns" in page.words
    assert f"{100 * coverage(cells):.1f} % have their true value inside" in page.words
    assert "true value" not in Page(report(table_fit(), imputations=imputations)).words


def test_a_fit_of_a_function_needs_no_table() -> None:
    page = Page(report(function_fit()))
    predictive = "Prior and posterior predictive"
    assert page.headings == ["What was fitted", "Model", "Summary", predictive, "Trace"]
    assert "x (20,), y (20,), powers (1, 2), name 'a', nothing None" in page.words
    assert page.text.count("line") >= 2  # title and heading


@pytest.mark.parametrize("include_data", [True, False])
def test_a_loaded_fit_can_be_reported(tmp_path: Path, include_data: bool) -> None:
    for name, result, model in (("table", table_fit(), None), ("function", function_fit(), line)):
        save(result, tmp_path / name, include_data)
        loaded = report(load(tmp_path / name, model=model))
        assert (loaded == report(result)) == include_data
        assert ("saved without its data" in loaded) != include_data


def test_a_fit_loaded_without_its_model_has_what_was_stored(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "fit")
    page = Page(report(load(tmp_path / "fit")))
    assert "Nothing to show: the saved fit does not hold its model" in page.words
    assert {"a/slope", "noise", "mean"} <= set(page.text)


def test_a_table_without_holes_has_nothing_completed(imputations: Imputations) -> None:
    whole = replace(imputations, frame=full_table(), cells=imputations.cells[:, :0])
    assert "The table has no missing cells." in Page(report(table_fit(), imputations=whole)).words


def test_the_page_is_written(tmp_path: Path) -> None:
    text = report(function_fit(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    with pytest.raises(StoreError, match="cannot be written"):
        report(function_fit(), tmp_path / "absent" / "report.html")


# The model and what it predicts


def test_the_sites_are_a_table(page: Page) -> None:
    start = page.text.index("x", page.text.index("depends on"))
    row = [
        "x",
        "observed",
        "IncompleteMVN",
        "40 \N{MULTIPLICATION SIGN} 3",
        "data",
        "location, spread, correlation_cholesky",
    ]
    assert page.text[start : start + 6] == row
    assert page.text[page.text.index("8 sites") - 1] == "Model"


def test_predictions_stand_beside_what_was_observed(page: Page) -> None:
    assert "beside 40 sets of values" in page.words
    assert [picture["alt"] for picture in page.pictures[:3]] == [
        f"observed and predicted distribution of {name}" for name in table_fit().schema.names
    ]
    assert "prior predictive mean" in page.words


def test_the_columns_that_differ_most_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = predictive_checks(table_fit()).checks
    least = min(checks, key=lambda check: check.distance).name
    monkeypatch.setattr("pyrolatent.pictures.MOST_PANELS", 2)
    page = Page(report(table_fit()))
    assert "for the 2 of 3 quantities in which the two differ most" in page.words
    shown = [picture["alt"] for picture in page.pictures[:2]]
    assert f"observed and predicted distribution of {least}" not in shown


def test_a_prior_that_is_left_out_is_explained() -> None:
    problem = table_fit().problem
    sites = replace(table_fit().sites, factors=("weight",))
    page = Page(report(replace(table_fit(), sites=sites, problem=problem)))
    assert "Without the prior: pyro.factor sites ['weight']" in page.words
    assert "prior predictive mean" not in page.words


# Other methods


def learnt(**changes: Any) -> Fit:
    """As if the fit came from a method that judges no draws and keeps no statistics."""
    info = {"rung": "vmap", "reason": "", "versions": function_fit().info["versions"]}
    bare = {"sample_stats": {}, "diagnostics": {}, "warnings": (), "info": info}
    return replace(function_fit(), **bare | changes)


def test_a_fit_without_statistics_has_no_trace_and_no_judgement() -> None:
    page = Page(report(learnt()))
    assert "Trace" not in page.headings and "Summary" in page.headings
    assert "No warnings." in page.words
    assert "R-hat" not in page.words and "ESS" not in page.words and "Seconds" not in page.words


def test_every_number_of_the_run_is_told() -> None:
    info = learnt().info | {"log_evidence": -31.25, "steps": 2000, "compiled": False, "draw_shape": (1, 10)}
    page = Page(report(learnt(info=info)))
    assert "rung vmap, not compiled, log evidence -31.25, steps 2000" in page.words


def test_effective_sample_sizes_alone_have_a_column() -> None:
    draws = {name: {"ess": torch.full(value.shape[2:], 123.0)} for name, value in learnt().samples.items()}
    page = Page(report(learnt(diagnostics=draws)))
    assert "smallest ESS" in page.text and "largest nested R-hat" not in page.text
    assert page.text.count("123") == 2 * 3 + 1 + 20 - 1  # each site, and each number of each site


def test_losses_are_drawn() -> None:
    losses = {"train": torch.linspace(9, 1, 50).expand(3, 50), "validation": torch.ones(3, 0)}
    page = Page(report(learnt(losses=losses)))
    assert page.headings[-1] == "Loss"
    assert "of each of 3 refits over 50 steps" in page.words and "held out" not in page.words
    page = Page(report(learnt(losses=losses | {"validation": torch.ones(3, 5)})))
    assert "loss of the rows held out" in page.words
    assert page.pictures[-1]["alt"] == "loss of 3 refits over 50 steps"


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (0.3, "Pareto k is 0.30 (< 0.50): the smoothed weights can be trusted, and have a finite variance."),
        (0.9, "Pareto k is 0.90, and only below 0.50 could the weights be trusted."),
        (math.inf, "Pareto k is inf, and only below 0.50"),
        (-math.inf, "The largest weights are all equal"),
    ],
)
def test_importance_weights_are_judged(k: float, words: str) -> None:
    smoothed = torch.tensor([0.5, *[0.5 / 99] * 99], dtype=torch.float64).log()
    page = Page(report(learnt(weights=Weights(smoothed + 3, smoothed, k))))
    assert page.headings[-1] == "Importance weights"
    assert words in page.words
    # 1 / (0.25 + 99 (0.5 / 99)^2) = 3.96
    assert "The 100 draws of the proposal count for 4; the heaviest has 50 % of the weight." in page.words


def network(y: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(0.0, scale), obs=y)


def test_a_fit_that_learnt_weights_and_drew_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = fit(network, {"y": torch.arange(20.0)}, SVI(num_steps=30), seed=1, progress=False)
    assert not found.samples
    page = Page(report(found))
    sections = ["What was fitted", "Model", "Learnt parameters", "Prior and posterior predictive", "Loss"]
    assert page.headings == sections
    start = page.text.index("scale", page.text.index("1 parameters"))
    assert page.text[start : start + 2] == ["scale", "scalar"]
    assert "optimizer=Adam" in page.words and "0x" not in page.words


# Completed cells


def test_every_missing_cell_has_its_line(imputations: Imputations) -> None:
    cells = cell_table(imputations, 0.5, full_table())
    assert list(cells.columns) == ["row", "column", "mean", "sd", "lower", "upper", "truth"]
    lower, upper = imputations.interval(0.5)
    expected = {"mean": imputations.mean, "sd": imputations.sd, "lower": lower, "upper": upper}
    expected["truth"] = full_table()
    holes = holed_table()[list(table_fit().schema.names)].isna()
    assert len(cells) == holes.to_numpy().sum()
    for _, cell in cells.iterrows():
        assert holes.loc[cell["row"], cell["column"]]
        for name, frame in expected.items():
            assert cell[name] == frame.loc[cell["row"], cell["column"]]


def test_coverage_counts_known_values_inside() -> None:
    cells = pd.DataFrame({"lower": [0.0] * 5, "upper": [1.0] * 5, "truth": [0.0, 0.5, 1.5, -0.5, np.nan]})
    assert coverage(cells) == 0.5


def test_the_truth_must_be_of_the_same_rows(imputations: Imputations) -> None:
    for truth in (full_table().iloc[1:], full_table().drop(columns="visits")):
        with pytest.raises(DataError, match="the true values belong to another table"):
            cell_table(imputations, truth=truth)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        cell_table(imputations, 1.5)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.00012345, ".4g", "0.0001234"),
        (-2.0, ".4g", "\N{MINUS SIGN}2"),
        (12345.6, ",.0f", "12,346"),
        (np.nan, ".4g", DASH),
        (-np.inf, ".4g", "\N{MINUS SIGN}\N{INFINITY}"),
    ],
)
def test_numbers_of_the_page(value: float, form: str, text: str) -> None:
    assert number(value, form) == text
