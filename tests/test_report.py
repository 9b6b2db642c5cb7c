import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pyrolatent.cells import cell_table, coverage
from pyrolatent.errors import ArgumentError, DataError, StoreError
from pyrolatent.impute import Imputations
from pyrolatent.report import DASH, number, pairwise_correlation, report
from pyrolatent.store import load, save
from pyrolatent.summary import summary
from tests.small_fits import completed, full_table, function_fit, holed_table, table_fit


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
    sections = ["What was fitted", "Columns", "Summary", "Correlations", "Completed cells", "Trace"]
    assert page.headings == sections
    missing = 100 * holed_table()[list(table_fit().schema.names)].isna().to_numpy().mean()
    assert f"40 rows, 3 modelled columns, {missing:.1f} % of their cells missing" in page.words
    told = ["BayesianMVN(eta=2.0, standardise=True)", repr(table_fit().method), "float64 on cpu", "rung vmap"]
    told += [f"{name} {version}" for name, version in table_fit().info["versions"].items()]
    assert [words for words in told if words not in page.words] == []


def test_warnings_come_before_everything_else(page: Page) -> None:
    fit = table_fit()
    assert len(fit.warnings) >= 2  # it is too short on purpose
    places = [page.words.index(words) for words in (*fit.warnings, *page.headings)]
    assert places == sorted(places)
    good = Page(report(replace(fit, warnings=())))
    assert "No warnings" in good.words and "Weaker than it looks" not in good.words


def test_the_page_needs_no_other_file(page: Page) -> None:
    assert len(page.sources) == len(page.pictures) == 2 + 3 + 1  # maps, columns with holes, trace
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for picture in page.pictures:
        image = Image.open(io.BytesIO(base64.b64decode((picture["src"] or "").split(",")[1])))
        image.load()
        assert image.format == "PNG" and image.width > int(picture["width"] or 0) > 300


def test_names_from_the_table_are_text(page: Page) -> None:
    assert "<b>height</b> & more" in page.text
    source = report(table_fit())
    assert "&lt;b&gt;height" in source and "<b>height" not in source
    assert [picture["alt"] for picture in page.pictures[2:5]] == [
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
    assert page.headings == ["What was fitted", "Summary", "Trace"]
    assert "x (20,), y (20,), powers (1, 2), name 'a', nothing None" in page.words
    assert page.text.count("line") >= 2  # title and heading


@pytest.mark.parametrize("include_data", [True, False])
def test_a_loaded_fit_can_be_reported(tmp_path: Path, include_data: bool) -> None:
    for name, fit in (("table", table_fit()), ("function", function_fit())):
        save(fit, tmp_path / name, include_data)
        loaded = report(load(tmp_path / name))
        assert (loaded == report(fit)) == include_data
        assert ("saved without its data" in loaded) != include_data


def test_a_table_without_holes_has_nothing_completed(imputations: Imputations) -> None:
    whole = replace(imputations, frame=full_table(), cells=imputations.cells[:, :0])
    assert "The table has no missing cells." in Page(report(table_fit(), imputations=whole)).words


def test_the_page_is_written(tmp_path: Path) -> None:
    text = report(function_fit(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    with pytest.raises(StoreError, match="cannot be written"):
        report(function_fit(), tmp_path / "absent" / "report.html")


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
        (np.inf, ".4g", DASH),
    ],
)
def test_numbers_of_the_page(value: float, form: str, text: str) -> None:
    assert number(value, form) == text
