"""Pictures of matrices and of cells: each function returns a matplotlib `Figure` and touches no global state.

Figures are made for a page: no titles, sized in inches so that their text is as large as that of
the page around them.
"""

import base64
import io
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, SOFT, BAND, BLUE, ORANGE = "#1c2430", "#6b7685", "#e8ebf0", "#2f6690", "#d1661a"
DPI = 150
MOST_NUMBERS = 16  # columns up to which the cells of a map hold their numbers
MOST_LABELS = 60  # columns up to which a map names them
LONGEST_LABEL = 24
MOST_SHADES = 8  # labels of a completed column

Matrix = NDArray[np.float64]


def matrix_map(
    matrix: Matrix, names: Sequence[object], *, limit: float, label: str, colours: str = "RdBu_r"
) -> Figure:
    """Draw a symmetric matrix as a heat map, without its diagonal.

    Args:
        matrix: The numbers (D, D), NaN where there is none.
        names: The D names of rows and columns; long ones are shortened, more than 60 left out.
        limit: The colours reach from -limit to limit.
        label: What the numbers are, for the colour bar.
        colours: A diverging colour map.
    """
    size = len(matrix)
    width = size * cell_inches(size)
    figure, axes = new_figure(width + 2.2, width + 1.4)
    off_diagonal = np.where(np.eye(size, dtype=bool), np.nan, matrix)
    image = axes.imshow(off_diagonal, cmap=colours, vmin=-limit, vmax=limit)
    axes.set_facecolor(BAND)
    axes.tick_params(length=0)
    label_columns(axes, names if size <= MOST_LABELS else [])
    if size <= MOST_NUMBERS:
        write_numbers(axes, off_diagonal, limit)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(label, color=SOFT, fontsize=9)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    return figure


def cell_inches(size: int) -> float:
    """Return the width of a cell that its number, or else the label of its row, fits in."""
    if size <= MOST_NUMBERS:
        return 0.42
    return 0.26 if size <= MOST_LABELS else 8 / size


def label_columns(axes: Axes, names: Sequence[object]) -> None:
    """Name the rows and columns of a map."""
    places, texts = range(len(names)), [shortened(name) for name in names]
    size = 8 if len(names) <= MOST_NUMBERS else 7
    axes.set_xticks(places, texts, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(places, texts, fontsize=size, parse_math=False)


def write_numbers(axes: Axes, matrix: Matrix, limit: float) -> None:
    """Write each number into its cell."""
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * limit else INK
            axes.text(column, row, two_digits(value), ha="center", va="center", fontsize=7, color=colour)


def two_digits(value: float) -> str:
    """Return a number as .53 for 0.53."""
    return f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1)  # + 0.0 drops the sign of -0.0


def interval_plot(cells: pd.DataFrame, observed: NDArray[np.float64]) -> Figure:
    """Draw completed cells of one column as points with their intervals.

    Args:
        cells: Lines of `cell_table`; with a `truth` column the true values are drawn too.
        observed: The observed values of the column; their central 90 % is shaded.
    """
    places = np.arange(len(cells))
    figure, axes = new_figure(3.6, 0.24 * len(cells) + 0.6)
    axes.axvspan(*np.quantile(observed, (0.05, 0.95)), color=BAND, lw=0)
    axes.hlines(places, cells["lower"], cells["upper"], color=BLUE, lw=2)
    axes.plot(cells["mean"], places, "o", color=BLUE, ms=5)
    if "truth" in cells:
        axes.plot(cells["truth"], places, "D", color=ORANGE, ms=4.5)
    axes.set_yticks(places, [shortened(row, 14) for row in cells["row"]], fontsize=8, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.05, y=0.6 / len(cells))
    axes.invert_yaxis()
    return figure


def level_plot(probabilities: pd.DataFrame) -> Figure:
    """Draw how probable the labels of completed cells of one column are, as shades with numbers.

    Args:
        probabilities: A row for each cell and a column for each label; of more than 8 labels, the
            most probable ones are shown.
    """
    likeliest = np.sort(np.argsort(-probabilities.mean().to_numpy(), kind="stable")[:MOST_SHADES])
    shown = probabilities.iloc[:, likeliest]
    figure, axes = new_figure(3.6, 0.24 * len(shown) + 1.1)
    axes.imshow(shown.to_numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, level), share in np.ndenumerate(shown.to_numpy()):
        colour = "white" if share > 0.6 else INK
        axes.text(level, row, two_digits(share), ha="center", va="center", fontsize=7, color=colour)
    texts = [shortened(label, 14) for label in shown.columns]
    axes.set_xticks(range(len(texts)), texts, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(
        range(len(shown)), [shortened(row, 14) for row in shown.index], fontsize=8, parse_math=False
    )
    axes.tick_params(length=0)
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of so many inches, and its axes without a frame."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    return figure, axes


def shortened(name: object, longest: int = LONGEST_LABEL) -> str:
    """Return a label of at most so many characters, the middle of a longer one left out."""
    text = " ".join(str(name).split())
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def png_uri(figure: Figure) -> str:
    """Return a figure as a PNG picture inside a data URI."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in a script that the font lacks show as boxes; the page spells them out beside the picture.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
