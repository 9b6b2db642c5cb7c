"""Pictures of how the columns of a table hang together: correlations, and what a few components keep."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrolatent.column import check_varies, holds_numbers, numbers
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.metrics.structure import numeric_columns
from pyrolatent.plots.figures import LETTERS_PER_INCH, add_bar, label_axes, label_panel, new_panels, shortened
from pyrolatent.plots.matrices import (
    NAME,
    NUMBER,
    Matrix,
    draw_matrix,
    name_cells,
    without_diagonal,
    write_numbers,
)

MOST_NUMBERS, MOST_LABELS = 8, 36  # columns up to which one of three maps holds its numbers and names
WIDEST = 4.5  # inches of one of three maps, into which so many names fit
LETTER = 0.06  # inches of one of a name
MOST_ROWS = 40  # of a table
LIMIT = 3.0  # standard deviations


def correlation_maps(
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str] = ("observed", "generated"),
    limit: float | None = None,
) -> Figure:
    """Draw the correlations of two tables and their difference, second minus first, side by side.

    Correlations are pairwise where cells are missing, and those of a constant column are left out.  The
    numbers stand in the cells of up to 8 columns, the names beside those of up to 36.

    Args:
        first: `(N, D)`; columns that are no numbers in both tables are left out.
        second: `(M, D)`, with the same columns in any order.
        names: What the two tables are.
        limit: The colours of the difference reach from -limit to limit, as they should where several
            pictures are compared; by default to the largest difference.

    Raises:
        ArgumentError: `limit` is not positive.
        DataError: The tables have fewer than two numeric columns in common.
    """
    if limit is not None and not limit > 0:
        raise ArgumentError("limit must be positive", why=f"got {limit}")
    columns = numeric_columns(first, second, 2)
    before, after = (without_diagonal(table[columns].corr().to_numpy()) for table in (first, second))
    size = len(columns)
    shown = columns if size <= MOST_LABELS else []
    inches = min(WIDEST, size * (NUMBER if size <= MOST_NUMBERS else NAME))
    beside = LETTER * max((len(shortened(name)) for name in shown), default=0)
    figure, panels = new_panels(3, 3, inches + (beside + 2) / 3, inches + beside + 0.5)
    figure.set_layout_engine("compressed")  # leaves room for names beside what has a shape of its own
    residual = after - before
    widest = float(np.nanmax(np.abs(residual), initial=0)) or 1.0 if limit is None else limit
    limits, labels = (1.0, 1.0, widest), (*names, f"{names[1]} minus {names[0]}")
    for axes, matrix, most, label in zip(panels, (before, after, residual), limits, labels, strict=True):
        image = draw_matrix(axes, matrix, -most, most, "PuOr_r" if matrix is residual else "RdBu_r")
        name_cells(axes, shown if axes is panels[0] else [], shown, size=7)
        label_panel(axes, label, int(LETTERS_PER_INCH * inches))
        if size <= MOST_NUMBERS:
            write_numbers(axes, matrix, most)
        if axes is panels[1]:
            add_bar(figure, image, panels[:2], "correlation")
    add_bar(figure, image, panels[2:], "difference")
    return figure


def low_rank_maps(frame: pd.DataFrame, ranks: Sequence[int]) -> Figure:
    """Draw rows of a standardised table beside what its leading singular vectors keep of them.

    The vectors are those of all rows, of which the first 40 are drawn.  Each label says what share of the
    sum of squares of the whole table is lost: 0 at the rank of the table, which is at most its number of
    columns (Eckart and Young, 1936).

    Args:
        frame: `(N, D)`, complete and of numbers; columns that are no numbers are left out.
        ranks: How many singular vectors each panel keeps.

    Raises:
        ArgumentError: A rank is below 1 or above the number of columns.
        DataError: Cells are missing, a column is constant, or there are no numbers.
    """
    table = standardised(frame)
    bad = [rank for rank in ranks if not 1 <= rank <= len(table.columns)]
    if bad or not len(ranks):
        raise ArgumentError(
            "ranks go from 1 to the number of columns",
            why=f"got {list(ranks)} for {len(table.columns)} columns of numbers",
        )
    left, singular, right = np.linalg.svd(table.to_numpy(), full_matrices=False)
    parts, squares = left * singular, singular**2
    panels = [("standardised table", table.to_numpy())]
    for rank in ranks:
        lost = squares[rank:].sum() / squares.sum()
        panels.append((f"rank {rank}: {lost:.1%} lost", parts[:, :rank] @ right[:rank]))
    return row_maps(panels, table)


def row_maps(matrices: Sequence[tuple[str, Matrix]], table: pd.DataFrame) -> Figure:
    """Draw the first rows of several matrices `(N, D)` with the columns of a table side by side."""
    across = min(len(matrices), 4)
    width = max(1.7, 0.16 * len(table.columns))
    figure, panels = new_panels(len(matrices), across, width + 0.3, 3.6)
    for axes, (label, matrix) in zip(panels, matrices, strict=True):
        image = draw_matrix(axes, matrix[:MOST_ROWS], -LIMIT, LIMIT, "RdBu_r")
        axes.set_aspect("auto")
        name_cells(axes, [], table.columns, size=7)
        label_panel(axes, label)
    label_axes(panels[0], "", f"the first {MOST_ROWS} rows" if len(table) > MOST_ROWS else "rows")
    add_bar(figure, image, panels, "standard deviations")
    return figure


def standardised(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of numbers `(N, D)` with mean 0 and standard deviation 1.

    Raises:
        DataError: Cells are missing, a column is constant, or there are no numbers.
    """
    names = [name for name in frame if holds_numbers(frame[name])]
    if not names:
        raise DataError("the table has no columns of numbers", why=f"its columns are {list(frame.columns)}")
    for name in names:
        check_varies(frame[name])
    values: NDArray[np.float64] = np.stack([numbers(frame[name]) for name in names], 1)
    holes = int(np.isnan(values).sum())
    if holes:
        raise DataError(
            "the table has missing cells",
            why=f"{holes} of them",
            remedy="Complete it first, as impute() does",
        )
    return pd.DataFrame((values - values.mean(0)) / values.std(0), frame.index, names)
