"""Pictures of tables, latents, images and training: what their artists hold."""

import dataclasses
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.infer.svi import SVI
from pyrolatent.plots import (
    histograms_over,
    image_grid,
    latent_scatter,
    lines_over,
    marginal_histograms,
    training_curves,
    traversal_lines,
)
from pyrolatent.plots.figures import BAND, BLUE, OBSERVED, ORANGE, PALETTE, png_uri
from pyrolatent.result import Fit
from tests.small_fits import table_fit


def legend_of(figure: Figure) -> list[str]:
    """The words of its one legend."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def x_labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


# Training


def learnt(train: np.ndarray, validation: np.ndarray | None = None) -> Fit:
    """A fit with these losses."""
    held_out = torch.empty(1, 0) if validation is None else torch.tensor(validation)
    return dataclasses.replace(table_fit(), losses={"train": torch.tensor(train), "validation": held_out})


def paths(axes: Axes) -> list[list[list[float]]]:
    """Heights of the lines of each bundle."""
    return [[path.vertices[:, 1].tolist() for path in bundle.get_paths()] for bundle in axes.collections]


def test_one_fit_is_drawn_as_in_the_report_with_a_legend() -> None:
    train, validation = np.arange(100.0)[None], np.array([[4.0, 3.0]])
    figure = training_curves(learnt(train, validation))
    raw, smooth, held_out = paths(figure.axes[0])
    assert raw == train.tolist()
    assert smooth == (train[:, 1:] - 0.5).tolist()
    assert held_out == validation.tolist()
    assert legend_of(figure) == ["training", "held-out rows"]
    assert legend_of(training_curves(learnt(train))) == ["training"]


def test_several_fits_have_a_colour_each_and_dashes_for_held_out_rows() -> None:
    fits = {
        "$short$": learnt(np.full((2, 10), 3.0), np.array([[7.0], [6.0]])),
        "long": learnt(np.full((1, 20), 5.0)),
    }
    figure = training_curves(fits)
    (axes,) = figure.axes
    assert paths(axes) == [[[3.0] * 10] * 2, [[7.0], [6.0]], [[5.0] * 20]]
    shades = [to_hex(bundle.get_colors()[0]) for bundle in axes.collections]
    assert shades == [BLUE, BLUE, ORANGE]
    assert [bundle.get_linestyle()[0][1] is not None for bundle in axes.collections] == [False, True, False]
    assert axes.get_xlim() == (1, 20)
    low, high = axes.get_ylim()
    assert low < 3 and high > 7
    assert legend_of(figure) == ["$short$", "long", "held-out rows"]
    png_uri(figure)


def test_losses_of_tables_of_several_sizes_compare_by_row() -> None:
    """Held-out rows are scaled to those learnt from, which are all others."""
    train, validation = np.full((1, 10), 30.0), np.array([[60.0]])
    fits = {"all": learnt(train), "most": learnt(train, validation)}
    fits["most"] = dataclasses.replace(fits["most"], method=SVI(validation_fraction=0.25))
    rows = fits["all"].sites.rows
    assert rows is not None
    (axes,) = training_curves(fits, per_row=True).axes
    learnt_from = rows - round(0.25 * rows)
    assert paths(axes) == [[[30 / rows] * 10], [[30 / learnt_from] * 10], [[60 / learnt_from]]]
    assert axes.get_ylabel() == "loss (nats a row)"
    (axes,) = training_curves(fits["all"], per_row=True).axes
    assert paths(axes)[0] == [[30 / rows] * 10]
    assert axes.get_ylabel() == "loss (nats a row)"
    no_rows = dataclasses.replace(fits["all"], sites=dataclasses.replace(fits["all"].sites, rows=None))
    assert training_curves(no_rows).axes[0].get_ylabel() == "loss (nats)"
    with pytest.raises(ArgumentError, match=r"^there are no rows to divide losses by"):
        training_curves(no_rows, per_row=True)


def test_fits_without_losses_have_no_curves() -> None:
    remedy = r"draw fits of a method that learns by steps, as SVI\(\) does\.$"
    with pytest.raises(ArgumentError, match=f"^there are no losses to draw. {remedy}"):
        training_curves(table_fit())
    with pytest.raises(ArgumentError, match=r"^fit 'hmc': there are no losses to draw"):
        training_curves({"svi": learnt(np.ones((1, 9))), "hmc": table_fit()})
    with pytest.raises(ArgumentError, match=r"^there is nothing to draw. pass one or more by name"):
        training_curves({})


# Columns


def test_numbers_are_counted_in_bins_that_all_tables_share() -> None:
    rng = np.random.default_rng(0)
    tables = {name: pd.DataFrame({"x": rng.normal(k, 1, 1_000)}) for k, name in enumerate("ab")}
    tables["b"].loc[0, "x"] = np.nan
    figure = marginal_histograms(tables)
    (axes,) = figure.axes
    first, second = (patch.get_data() for patch in axes.patches)
    np.testing.assert_array_equal(first.edges, second.edges)
    for data, table in zip((first, second), tables.values(), strict=True):
        counts, _ = np.histogram(table["x"].dropna(), first.edges)
        np.testing.assert_allclose(data.values, counts / table["x"].count(), rtol=1e-12)
    assert first.values.sum() > 0.98
    assert to_hex(axes.patches[0].get_facecolor()) == OBSERVED
    assert to_hex(axes.patches[1].get_edgecolor()) == BLUE
    assert [patch.get_fill() for patch in axes.patches] == [True, False]
    assert axes.get_ylim()[1] > max(first.values.max(), second.values.max())
    assert axes.get_xlabel() == "x"
    assert legend_of(figure) == ["a", "b"]


def test_values_far_out_do_not_flatten_the_picture() -> None:
    values = np.append(np.random.default_rng(0).normal(size=1_000), 1e6)
    (axes,) = marginal_histograms({"a": pd.DataFrame({"x": values})}).axes
    assert axes.patches[0].get_data().edges[-1] < 6


def test_labels_are_bars_side_by_side_in_their_order() -> None:
    kind = pd.CategoricalDtype(["low", "high", "never"])
    tables = {
        "a": pd.DataFrame({"$x$": pd.Series(["low", "low", "high", None], dtype=kind)}),
        "b": pd.DataFrame({"$x$": pd.Series(["high", "new"])}),
    }
    (axes,) = marginal_histograms(tables).axes
    assert x_labels(axes) == ["low", "high", "new"]
    assert [bar.get_height() for bar in axes.patches] == [2 / 3, 1 / 3, 0, 0, 0.5, 0.5]
    edges = np.array([bar.get_x() for bar in axes.patches]).reshape(2, 3)
    np.testing.assert_allclose(edges, np.arange(3) + np.array([[-0.42], [0]]), atol=1e-12)
    assert axes.get_xlabel() == "$x$"


def test_whole_numbers_and_truth_values_are_bars_too() -> None:
    table = pd.DataFrame({"visits": [0, 1, 1, 3], "yes": [True, False, True, True], "many": [0, 9, 40, 99]})
    visits, yes, many = marginal_histograms({"a": table}).axes
    assert x_labels(visits) == ["0", "1", "2", "3"]
    assert [bar.get_height() for bar in visits.patches] == [0.25, 0.5, 0, 0.25]
    assert x_labels(yes) == ["False", "True"]
    assert [bar.get_height() for bar in yes.patches] == [0.25, 0.75]
    assert isinstance(many.patches[0], StepPatch)


def test_of_many_labels_the_most_frequent_are_drawn() -> None:
    labels = pd.Series([f"label {k:02d}" for k in range(15) for _ in range(1 + (k > 0))])
    (axes,) = marginal_histograms({"a": pd.DataFrame({"x": labels})}).axes
    assert x_labels(axes) == [f"label {k:02d}" for k in range(1, 13)]
    assert {bar.get_height() for bar in axes.patches} == {2 / 29}
    assert axes.get_xlabel() == "x (and 3 labels more)"


def test_of_many_columns_the_first_are_drawn_and_the_rest_on_demand() -> None:
    table = pd.DataFrame(np.arange(40.0).reshape(2, 20)).rename(columns=str)
    figure = marginal_histograms({"a": table, "b": table.drop(columns="0")})
    assert [axes.get_xlabel() for axes in figure.axes] == [str(k) for k in range(1, 13)]
    assert figure.get_supxlabel() == "12 of 19 columns; columns= chooses others"
    asked = marginal_histograms({"a": table}, table.columns[::-1])
    assert [axes.get_xlabel() for axes in asked.axes] == [str(k) for k in range(19, -1, -1)]
    assert asked.get_supxlabel() == ""


def test_tables_that_cannot_be_compared_are_refused() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0], "y": [np.nan, np.nan]})
    with pytest.raises(ArgumentError, match=r"^columns \['z'\]: not in all tables. choose from \['x', 'y'\]"):
        marginal_histograms({"a": table}, ["x", "z"])
    with pytest.raises(DataError, match=r"no columns in common: the first has \['x'\]"):
        marginal_histograms({"a": table[["x"]], "b": table[["y"]]})
    with pytest.raises(DataError, match="column 'y': every cell is missing"):
        marginal_histograms({"a": table})
    with pytest.raises(ArgumentError, match=r"^there is nothing to draw"):
        marginal_histograms({})
    with pytest.raises(ArgumentError, match=r"colours tell at most 10 apart: got 11. leave some out"):
        marginal_histograms({str(k): table for k in range(11)})


def test_generated_columns_stand_over_the_true_ones_row_by_row() -> None:
    rng = np.random.default_rng(0)
    truth = pd.DataFrame({"x": rng.normal(size=200), "label": ["a", "b"] * 100})
    tables = {
        1.0: pd.DataFrame({"x": rng.normal(size=100), "label": ["a", "b"] * 50}),
        20.0: pd.DataFrame({"x": np.zeros(100), "label": ["a"] * 100}),
    }
    figure = histograms_over(tables, truth)
    panels = np.array(figure.axes).reshape(2, 2)
    for axes, table in zip(panels[:, 0], tables.values(), strict=True):
        true, made = (patch.get_data() for patch in axes.patches)
        for data, values in ((true, truth["x"]), (made, table["x"])):
            expected = np.histogram(values, true.edges)[0] / len(values)
            np.testing.assert_allclose(data.values, expected, rtol=1e-12)
        assert axes.get_ylim()[1] > 1  # the peak of the second row, on the scale of both
    assert [bar.get_height() for bar in panels[1, 1].patches] == [0.5, 0.5, 1.0, 0.0]
    assert [axes.get_ylabel() for axes in figure.axes] == ["beta = 1", "", "beta = 20", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "x", "label"]
    assert legend_of(figure) == ["true", "generated"]
    rebuilt = histograms_over(tables, truth, names=("observed", "reconstructed"))
    assert legend_of(rebuilt) == ["observed", "reconstructed"]
    png_uri(figure)


def test_no_tables_cannot_stand_over_the_truth() -> None:
    with pytest.raises(ArgumentError, match=r"^there are no tables to draw. pass \{beta: table, ...\}"):
        histograms_over({}, pd.DataFrame({"x": [1.0]}))


# Latents


def latents(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(rows, 3)) * [1.0, 5.0, 0.1]).add_prefix("z")


def offsets(axes: Axes) -> np.ndarray:
    (points,) = axes.collections
    return np.asarray(points.get_offsets())


def test_components_have_the_variances_of_the_eigenvalues() -> None:
    table = latents()
    (axes,) = latent_scatter(table).axes
    points = offsets(axes)
    values, vectors = np.linalg.eigh(table.cov())
    np.testing.assert_allclose(np.cov(points.T), np.diag(values[:0:-1]), atol=1e-12)
    expected = (table - table.mean()).to_numpy() @ vectors[:, :0:-1]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-12)
    shares = values[:0:-1] / values.sum()
    assert axes.get_xlabel() == f"component 1 ({shares[0]:.0%})"
    assert axes.get_ylabel() == f"component 2 ({shares[1]:.0%})"


def test_numbers_colour_points_by_a_scale_and_those_missing_are_grey() -> None:
    table = latents()
    values = pd.Series(np.arange(40.0), name="age").where(lambda age: age > 0)
    figure = latent_scatter({"beta = 1": table, "beta = 4": table * 2}, values)
    first, second, bar = figure.axes
    shades = first.collections[0].get_facecolor()[:, :3]
    np.testing.assert_allclose(shades[0], to_rgb(OBSERVED))
    np.testing.assert_allclose(shades[[1, -1]], colormaps["viridis"]([0.0, 1.0])[:, :3])
    assert bar.get_ylim() == (1, 39) and bar.get_ylabel() == "age"
    assert [axes.get_title() for axes in (first, second)] == ["beta = 1", "beta = 4"]
    np.testing.assert_allclose(offsets(second), 2 * offsets(first), atol=1e-12)
    png_uri(figure)


def test_labels_colour_points_by_a_legend() -> None:
    label = pd.Series(pd.Categorical(["b", "a", None, "b"] * 10, ["b", "a", "unused"]))
    figure = latent_scatter(latents(), label)
    shades = figure.axes[0].collections[0].get_facecolor()[:4, :3]
    np.testing.assert_allclose(shades, [to_rgb(c) for c in (PALETTE[0], PALETTE[1], OBSERVED, PALETTE[0])])
    assert legend_of(figure) == ["b", "a"]
    assert legend_of(latent_scatter(latents(), label == "b")) == ["False", "True"]


def test_tsne_keeps_groups_together_and_is_the_same_each_time() -> None:
    table = latents() + np.repeat([0.0, 100.0], 20)[:, None]
    figure = latent_scatter(table, method="tsne")
    points = offsets(figure.axes[0])
    first, second = points[:20], points[20:]
    spread = max(np.linalg.norm(half - half.mean(0), axis=1).max() for half in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > spread
    np.testing.assert_array_equal(points, offsets(latent_scatter(table, method="tsne").axes[0]))
    assert figure.axes[0].get_xlabel() == "t-SNE 1" and len(figure.axes[0].get_xticks()) == 0
    assert not offsets(latent_scatter(table * 0, method="tsne").axes[0]).any()


def test_without_scikit_learn_tsne_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ArgumentError, match=r"t-SNE needs scikit-learn: .*\. pip install scikit-learn, or"):
        latent_scatter(latents(), method="tsne")


def test_latents_that_cannot_be_drawn_are_refused() -> None:
    table = latents()
    with pytest.raises(ArgumentError, match=r"unknown method: got 'umap'. choose 'pca' or 'tsne'"):
        latent_scatter(table, method="umap")
    with pytest.raises(ArgumentError, match=r"no latents to draw. pass what encode\(\) returns"):
        latent_scatter({})
    with pytest.raises(DataError, match="needs 5 rows and two latents: got 40 rows of 1 latents"):
        latent_scatter(table[["z0"]])
    with pytest.raises(DataError, match="latents are missing: 1 of 120 cells"):
        latent_scatter(table.mask(table == table.iloc[0, 0]))
    with pytest.raises(DataError, match=r"different rows: 40 and 39 of them, or another index. give the"):
        latent_scatter(table, pd.Series(range(39)))
    with pytest.raises(DataError, match="column 'y': every cell is missing"):
        latent_scatter(table, pd.Series(np.nan, table.index, name="y"))
    with pytest.raises(ArgumentError, match="colours tell at most 10 apart: got 40"):
        latent_scatter(table, pd.Series(range(40)).astype(str))


# Traversals and scores


def test_a_traversal_has_every_column_on_both_scales() -> None:
    rows = pd.DataFrame(
        {"still": 5.0, "rate": [0.1, 0.3, 0.2], "$income$": [1e5, 2e5, 9e4], "label": ["a", "b", "b"]},
        pd.Index([2.0, -1.0, 0.0], name="z[1]"),
    )
    figure = traversal_lines(rows)
    for axes, scale in zip(figure.axes, ("linear", "symlog"), strict=True):
        assert axes.get_yscale() == scale
        assert axes.get_xlabel() == "z[1]"
        assert axes.get_xlim() == (-1, 2)
        assert [line.get_xdata().tolist() for line in axes.lines] == [[-1, 0, 2]] * 3
        expected = [[5, 5, 5], [0.3, 0.2, 0.1], [2e5, 9e4, 1e5]]
        assert [line.get_ydata().tolist() for line in axes.lines] == expected
        assert [line.get_color() for line in axes.lines] == [OBSERVED, PALETTE[1], PALETTE[0]]
    assert legend_of(figure) == ["$income$", "rate", "others (1)"]
    assert [axes.get_ylabel()[:8] for axes in figure.axes] == ["columns,", "the same"]
    assert traversal_lines(rows, "standard deviations").axes[0].get_ylabel() == "standard deviations"
    png_uri(figure)


def test_values_of_the_latent_do_not_run_into_each_other() -> None:
    steps = pd.Index(np.linspace(-1, 1, 41), name="z[0]")
    figure = traversal_lines(pd.DataFrame({"x": np.arange(41.0), "y": -np.arange(41.0)}, steps))
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) > 2
        assert all(left.x1 + 5 < right.x0 for left, right in pairwise(boxes))


def test_of_many_columns_those_have_colours_that_move_most_on_either_scale() -> None:
    steps = np.array([0.0, 1.0])
    # On the scale of logs the columns of 10 move more than those of 10,000.
    large = {f"large {k}": 1e4 + (100 + k) * steps for k in range(8)}
    small = {f"small {k}": (10 + k) * steps for k in range(8)}
    words = legend_of(traversal_lines(pd.DataFrame(large | small, steps)))
    assert words[:4] == ["large 7", "small 7", "large 6", "small 6"]
    assert len(words) == 11 and words[-1] == "others (6)"


@pytest.mark.parametrize(("size", "near"), [(0.03, 0.01), (0.5, 0.1), (50.0, 1.0), (0.0, 1.0)])
def test_the_logarithmic_scale_begins_where_the_smallest_column_is(size: float, near: float) -> None:
    rows = pd.DataFrame({"small": [0.0, size], "large": [0.0, 2 * size]})
    axes = traversal_lines(rows).axes[1]
    assert axes.yaxis.get_transform().linthresh == near
    assert axes.get_ylabel() == f"the same, logarithmic from ±{near:g} on"


def test_a_row_alone_or_labels_are_no_traversal() -> None:
    remedy = "traverse a table with numbers over two values or more"
    with pytest.raises(DataError, match=f"no lines to draw: 1 rows with 1 columns of numbers. {remedy}"):
        traversal_lines(pd.DataFrame({"x": [1.0]}))
    with pytest.raises(DataError, match="2 rows with 0 columns of numbers"):
        traversal_lines(pd.DataFrame({"x": ["a", "b"]}))


def test_scores_are_lines_over_the_setting_in_its_order() -> None:
    scores = {"$a$": pd.Series([0.5, 0.9], [40, 1]), "b": pd.Series([0.1, 0.2, 0.3], [1.0, 2.0, 80.0])}
    figure = lines_over(scores, "KS complement")
    (axes,) = figure.axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 40], [1, 2, 80]]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.9, 0.5], [0.1, 0.2, 0.3]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("beta", "KS complement")
    assert legend_of(figure) == ["$a$", "b"]
    assert axes.get_xscale() == "log"
    png_uri(figure)
    assert {"1", "10", "50"} <= set(x_labels(axes))


@pytest.mark.parametrize(("setting", "scale"), [([1, 20], "linear"), ([1, 21], "log"), ([0, 21], "linear")])
def test_settings_far_apart_have_a_log_scale(setting: list[float], scale: str) -> None:
    (axes,) = lines_over({"a": pd.Series([1.0, 2.0], setting)}, "score", "lr").axes
    assert axes.get_xscale() == scale
    assert axes.get_xlabel() == "lr"


def test_scores_need_numbers_over_numbers() -> None:
    with pytest.raises(
        DataError, match=r"^line 'a': a line needs numbers over numbers: got 1 scores, float64"
    ):
        lines_over({"a": pd.Series([1.0], ["x"])}, "score")
    with pytest.raises(DataError, match="got 0 scores"):
        lines_over({"a": pd.Series([], dtype=float)}, "score")
    with pytest.raises(ArgumentError, match=r"^there is nothing to draw"):
        lines_over({}, "score")


# Images


def test_images_stand_in_rows_and_columns_pixel_by_pixel() -> None:
    images = torch.rand(2, 3, 1, 4, 5, dtype=torch.float64)
    figure = image_grid(images, ["original", "again"], ["$a$", "b", "c"])
    (axes,) = figure.axes
    (image,) = axes.images
    canvas = np.asarray(image.get_array())
    assert canvas.shape == (2 * 4 + 1, 3 * 5 + 2, 3)
    for row in range(2):
        for column in range(3):
            part = canvas[5 * row : 5 * row + 4, 6 * column : 6 * column + 5]
            np.testing.assert_array_equal(part, images[row, column, 0, :, :, None].expand(4, 5, 3))
    assert (canvas[4] == 1).all() and (canvas[:, 5] == 1).all()
    assert image.get_interpolation() == "nearest"
    assert x_labels(axes) == ["$a$", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "again"]
    assert axes.get_xticks().tolist() == [2, 8, 14] and axes.get_yticks().tolist() == [1.5, 6.5]
    png_uri(figure)


def test_images_have_colours_and_holes_the_colour_of_the_ground() -> None:
    rows = [np.zeros((1, 3, 2, 2)), np.zeros((1, 3, 2, 2))]
    rows[0][0, :, 0, 1] = [0.1, 0.2, 0.3]
    rows[1][0, 1, 1, 1] = np.nan
    canvas = np.asarray(image_grid(rows).axes[0].images[0].get_array())
    assert canvas[0, 1].tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(canvas[4, 1], [0, to_rgba(BAND)[1], 0])
    assert image_grid(rows).axes[0].get_xticks().size == 0


@pytest.mark.parametrize("size", [8, 28, 64, 300])
@pytest.mark.parametrize("columns", [1, 10, 30])
def test_pixels_are_never_smaller_than_those_of_the_page(size: int, columns: int) -> None:
    figure = image_grid(np.zeros((1, columns, 1, size, size)))
    png_uri(figure)
    box, canvas = figure.axes[0].get_window_extent(), figure.axes[0].images[0].get_array()
    assert box.width >= 0.999 * canvas.shape[1]
    assert box.height / box.width == pytest.approx(canvas.shape[0] / canvas.shape[1])


def test_images_of_other_shapes_and_values_are_refused() -> None:
    with pytest.raises(DataError, match=r"with 1 or 3 channels: got \(3, 2, 8, 8\)\.$"):
        image_grid(np.zeros((2, 3, 2, 8, 8)))
    with pytest.raises(DataError, match=r"of one shape, .*: got \(2, 1, 8, 8\), \(3, 1, 8, 8\)\.$"):
        image_grid([np.zeros((3, 1, 8, 8)), np.zeros((2, 1, 8, 8))])
    with pytest.raises(DataError, match="got no rows"):
        image_grid([])
    with pytest.raises(
        DataError, match=r"between 0 and 1: got 0 to 255. divide bytes by 255, clamp the rest"
    ):
        image_grid(np.full((1, 1, 1, 2, 2), 255, dtype=np.uint8))
    with pytest.raises(ArgumentError, match="row_names has a name for each row: got 1 for 2"):
        image_grid(np.zeros((2, 1, 1, 2, 2)), ["a"])
    with pytest.raises(ArgumentError, match="column_names has a name for each column: got 2 for 1"):
        image_grid(np.zeros((2, 1, 1, 2, 2)), None, ["a", "b"])
