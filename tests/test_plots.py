from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyrolatent.column import numbers
from pyrolatent.plots import interval_plot, level_plot, matrix_map, png_uri, shortened


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
