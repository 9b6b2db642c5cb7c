from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyrolatent.column import numbers
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.plots import correlation_maps, information_map, low_rank_maps
from pyrolatent.plots.cells import interval_plot, level_plot
from pyrolatent.plots.figures import png_uri, shortened
from pyrolatent.plots.matrices import matrix_map


def label_boxes(figure: Figure, axis: str) -> list[tuple[float, float]]:
    """First and last pixel of each tick label along its axis, in order."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = getattr(figure.axes[0], f"get_{axis}ticklabels")()
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    ends = [(box.x0, box.x1) if axis == "x" else (box.y0, box.y1) for box in boxes]
    return sorted(ends)


@pytest.mark.parametrize("size", [2, 12, 16, 17, 30, 60])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_labels_of_a_map_do_not_overlap(size: int, axis: str) -> None:
    names = [f"a rather long name of column number {number}" for number in range(size)]
    boxes = label_boxes(matrix_map(np.zeros((size, size)), names, limit=1.0, label="r"), axis)
    assert len(boxes) == size
    assert all(before[1] <= after[0] for before, after in pairwise(boxes))


def test_a_map_of_very_many_columns_names_none() -> None:
    figure = matrix_map(np.zeros((200, 200)), range(200), limit=1.0, label="r")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == []
    assert max(figure.get_size_inches()) < 12


def test_a_map_shows_its_numbers_without_the_diagonal() -> None:
    matrix = np.array([[1.0, -0.53, 0.0], [-0.53, 1.0, -0.004], [0.0, np.nan, 1.0]])
    figure = matrix_map(matrix, ["a", "b", "c"], limit=1.0, label="r")
    assert [text.get_text() for text in figure.axes[0].texts] == ["-.53", ".00", "-.53", ".00", ".00"]


def test_names_are_never_read_as_formulas(recwarn: pytest.WarningsRecorder) -> None:
    for names in (["$\\frac{$", "a_b^c"], ["温度", "\n x"]):
        png_uri(matrix_map(np.eye(2), names, limit=1.0, label="r"))
    cells = pd.DataFrame({"row": ["$x$"], "lower": 0.0, "upper": 1.0, "mean": 0.5, "truth": np.nan})
    png_uri(interval_plot(cells, np.array([0.0, 2.0])))
    assert len(recwarn) == 0


def test_intervals_are_drawn_where_they_are() -> None:
    cells = pd.DataFrame(
        {"row": [3, 7], "lower": [0.0, 1], "upper": [2, 5], "mean": [1, 4], "truth": [2.5, 3]}
    )
    (axes,) = interval_plot(cells, numbers(pd.Series(range(101)))).axes
    lines = np.stack([path.vertices for path in axes.collections[0].get_paths()])
    assert lines.tolist() == [[[0, 0], [2, 0]], [[1, 1], [5, 1]]]
    assert [points.get_xdata().tolist() for points in axes.lines] == [[1, 4], [2.5, 3]]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    np.testing.assert_allclose(band.intervalx, [5, 95], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("age", "age"),
        ("a" * 24, "a" * 24),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmno…stuvwxyz"),
        ("a\n b", "a b"),
        (3, "3"),
    ],
)
def test_long_names_lose_their_middle(name: object, short: str) -> None:
    assert shortened(name) == short


def test_labels_are_shaded_by_their_probability() -> None:
    shares = pd.DataFrame([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], index=["r1", "r2"], columns=["a", "b", "c"])
    (axes,) = level_plot(shares).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), shares)
    assert [text.get_text() for text in axes.texts] == [".25", ".75", ".00", "1.00", ".00", ".00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["r1", "r2"]


def test_of_many_labels_the_most_probable_are_shown_in_their_order() -> None:
    shares = pd.DataFrame([np.arange(12) / 66], columns=[f"label {k}" for k in range(12)])
    (axes,) = level_plot(shares[shares.columns[::-1]]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"label {k}" for k in range(11, 3, -1)]


# Information and correlations


def test_information_is_drawn_with_its_numbers() -> None:
    table = pd.DataFrame([[0.0, 1.5], [0.26, 0.5]], ["z[0]", "z[1]"], ["$sex$", "age"])
    axes = information_map(table).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), table)
    assert axes.images[0].get_clim() == (0.0, 1.5)
    assert [text.get_text() for text in axes.texts] == [".00", "1.50", ".26", ".50"]
    assert ticks(axes) == (["$sex$", "age"], ["z[0]", "z[1]"])
    small = information_map(table / 100).axes[0].texts
    assert [text.get_text() for text in small] == [".000", ".015", ".003", ".005"]


def test_information_that_is_no_table_of_numbers_is_refused() -> None:
    with pytest.raises(DataError, match=r"^the table of information is empty: its shape is \(0, 0\)\.$"):
        information_map(pd.DataFrame())
    with pytest.raises(DataError, match="column 'age', row 'z': text in a column of numbers: 'much'"):
        information_map(pd.DataFrame({"age": ["much"]}, ["z"]))


def ticks(axes: Axes) -> tuple[list[str], list[str]]:
    """Names of the columns and rows of a map."""
    return tuple([label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))


def two_tables(columns: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlated columns with holes, and noise in the same columns the other way round."""
    rng = np.random.default_rng(0)
    names = [f"column {k}" for k in range(columns)]
    first = pd.DataFrame(rng.normal(size=(50, columns)) + rng.normal(size=(50, 1)), columns=names)
    first.iloc[3, 0] = np.nan
    second = pd.DataFrame(rng.normal(size=(60, columns)), columns=names[::-1])
    return first.assign(label="a"), second


def test_correlations_of_two_tables_stand_beside_their_difference() -> None:
    first, second = two_tables(4)
    figure = correlation_maps(first, second, ("$seen$", "made"))
    names = [f"column {k}" for k in range(4)]
    observed, made = (table[names].corr().to_numpy() for table in (first, second))
    images = [axes.images[0] for axes in figure.axes[:3]]
    for image, expected in zip(images, (observed, made, made - observed), strict=True):
        shown = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_array_equal(shown, np.where(np.eye(4), np.nan, expected))
    largest = np.abs((made - observed)[~np.eye(4, dtype=bool)]).max()
    assert [image.get_clim() for image in images] == [(-1, 1), (-1, 1), (-largest, largest)]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["$seen$", "made", "made minus $seen$"]
    assert [ticks(axes) for axes in figure.axes[:3]] == [(names, names), (names, []), (names, [])]
    assert len(figure.axes[0].texts) == 12
    assert [bar.get_ylabel() for bar in figure.axes[3:]] == ["correlation", "difference"]
    png_uri(figure)


def test_differences_of_several_pictures_can_share_their_colours() -> None:
    images = [axes.images[0] for axes in correlation_maps(*two_tables(4), limit=0.25).axes[:3]]
    assert [image.get_clim() for image in images] == [(-1, 1), (-1, 1), (-0.25, 0.25)]
    with pytest.raises(ArgumentError, match=r"^limit must be positive: got 0$|limit must be positive"):
        correlation_maps(*two_tables(4), limit=0)


@pytest.mark.parametrize(("columns", "named", "numbers"), [(8, 8, 56), (9, 9, 0), (36, 36, 0), (37, 0, 0)])
def test_maps_of_many_correlations_have_fewer_words(columns: int, named: int, numbers: int) -> None:
    figure = correlation_maps(*two_tables(columns))
    assert len(ticks(figure.axes[0])[1]) == named
    assert len(figure.axes[0].texts) == numbers
    assert figure.get_figwidth() < 18


def test_names_beside_correlations_are_not_cut_off() -> None:
    first, second = two_tables(24)
    first, second = (table.rename(columns=lambda name: f"a rather long {name}") for table in (first, second))
    figure = correlation_maps(first, second)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    assert max(box.y1 for box in boxes) <= figure.bbox.height


def test_equal_and_constant_columns_can_be_drawn() -> None:
    same = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 4, 6], "c": 1.0})
    figure = correlation_maps(same, same)
    assert figure.axes[2].images[0].get_clim() == (-1, 1)
    assert len(figure.axes[0].texts) == 2
    with pytest.raises(DataError, match=r"too few numeric columns in common: \['a'\] are numeric in both"):
        correlation_maps(same, same[["a"]])


# Few components


def test_few_components_lose_what_singular_values_say() -> None:
    frame = two_tables(5)[0].drop(index=3)
    figure = low_rank_maps(frame, [1, 5])
    numbers = frame.drop(columns="label")
    table = ((numbers - numbers.mean()) / numbers.std(ddof=0)).to_numpy()
    # The best matrix of rank one has the leading eigenvector of the correlations as its row.
    values, vectors = np.linalg.eigh(numbers.corr())
    best = table @ np.outer(vectors[:, -1], vectors[:, -1])
    whole, one, all_five = (axes.images[0].get_array() for axes in figure.axes[:3])
    np.testing.assert_allclose(whole, table[:40], atol=1e-12)
    np.testing.assert_allclose(one, best[:40], atol=1e-12)
    np.testing.assert_allclose(all_five, table[:40], atol=1e-12)
    labels = [axes.get_title() for axes in figure.axes[:3]]
    assert labels == ["standardised table", f"rank 1: {1 - values[-1] / 5:.1%} lost", "rank 5: 0.0% lost"]
    lost = ((table - best) ** 2).sum() / (table**2).sum()
    assert lost == pytest.approx(1 - values[-1] / 5, rel=1e-12)
    assert ticks(figure.axes[0]) == (list(numbers), [])
    assert figure.axes[0].get_ylabel() == "the first 40 rows"


@pytest.mark.parametrize("ranks", [[2, 6], [0], []])
def test_ranks_beyond_the_columns_are_refused(ranks: list[int]) -> None:
    frame = two_tables(5)[1]
    why = rf"got \[{', '.join(map(str, ranks))}\] for 5 columns of numbers\.$"
    with pytest.raises(ArgumentError, match=f"^ranks go from 1 to the number of columns: {why}"):
        low_rank_maps(frame, ranks)


def test_tables_that_cannot_be_decomposed_are_refused() -> None:
    frame = two_tables(3)[0]
    with pytest.raises(DataError, match=r"missing cells: 1 of them\. Complete it first, as impute\(\) does"):
        low_rank_maps(frame, [1])
    with pytest.raises(DataError, match=r"no columns of numbers: its columns are \['label'\]"):
        low_rank_maps(frame[["label"]], [1])
    with pytest.raises(DataError, match="column 'flat': constant column"):
        low_rank_maps(frame.assign(flat=2.0), [1])
