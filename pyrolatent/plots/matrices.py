"""Pictures of matrices as heat maps: symmetric ones, and the information of latents about factors."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from pyrolatent.column import numbers
from pyrolatent.errors import DataError
from pyrolatent.plots.figures import (
    BAND,
    INK,
    LONGEST_LABEL,
    add_bar,
    label_axes,
    new_figure,
    shortened,
)

MOST_NUMBERS = 16  # columns up to which the cells of a map hold their numbers
MOST_LABELS = 60  # columns up to which a map names them
NUMBER, NAME = 0.42, 0.26  # inches of a cell that its number, or else the label of its row, fits in
SMALL = 0.1  # information below which two digits say too little

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
    off_diagonal = without_diagonal(matrix)
    image = draw_matrix(axes, off_diagonal, -limit, limit, colours)
    shown = names if size <= MOST_LABELS else []
    name_cells(axes, shown, shown, size=8 if size <= MOST_NUMBERS else 7)
    if size <= MOST_NUMBERS:
        write_numbers(axes, off_diagonal, limit)
    add_bar(figure, image, [axes], label)
    return figure


def information_map(table: pd.DataFrame) -> Figure:
    """Draw the mutual information of latents and factors as a heat map with numbers.

    Args:
        table: `(L, K)` in nats, as `metrics.mutual_information` returns it.

    Raises:
        DataError: The table is empty or holds something other than numbers.
    """
    if table.empty:
        raise DataError("the table of information is empty", why=f"its shape is {table.shape}")
    values = np.stack([numbers(table[name]) for name in table], 1)
    rows, columns = values.shape
    figure, axes = new_figure(columns * NUMBER + 2.6, rows * NAME + 1.6)
    most = float(np.nanmax(values)) or 1.0
    image = draw_matrix(axes, values, 0.0, most, "Blues")
    axes.set_aspect("auto")
    name_cells(axes, table.index, table.columns)
    label_axes(axes, "factor", "latent")
    write_numbers(axes, values, most, digits=2 if most >= SMALL else 3)
    add_bar(figure, image, [axes], "mutual information (nats)")
    return figure


def draw_matrix(axes: Axes, matrix: Matrix, low: float, high: float, colours: str) -> AxesImage:
    """Draw numbers as colours from `low` to `high`, where there is none the colour of the ground."""
    axes.set_facecolor(BAND)
    return axes.imshow(matrix, cmap=colours, vmin=low, vmax=high)


def without_diagonal(matrix: Matrix) -> Matrix:
    """Return a matrix with NaN on its diagonal."""
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def cell_inches(size: int) -> float:
    """Return the width of a cell that its number, or else the label of its row, fits in."""
    if size <= MOST_NUMBERS:
        return NUMBER
    return NAME if size <= MOST_LABELS else 8 / size


def name_cells(
    axes: Axes, rows: Iterable[object], columns: Iterable[object], size: int = 8, longest: int = LONGEST_LABEL
) -> None:
    """Name the rows and columns of a map."""
    for axis, names, turned in ((axes.xaxis, columns, 90), (axes.yaxis, rows, 0)):
        texts = [shortened(name, longest) for name in names]
        axis.set_ticks(range(len(texts)), texts, rotation=turned, fontsize=size, parse_math=False)
    axes.tick_params(length=0)


def write_numbers(axes: Axes, matrix: Matrix, limit: float, digits: int = 2) -> None:
    """Write each number into its cell."""
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * limit else INK
            text = short_number(value, digits)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def short_number(value: float, digits: int) -> str:
    """Return a number as .53 for 0.53."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("0.", ".", 1)  # + 0.0 drops the sign of -0.0
