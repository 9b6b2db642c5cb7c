"""Pictures of completed cells: intervals of numbers, probabilities of labels."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrolatent.plots.figures import BAND, BLUE, ORANGE, new_figure, shortened
from pyrolatent.plots.matrices import name_cells, write_numbers

MOST_SHADES = 8  # labels of a completed column


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
    write_numbers(axes, shown.to_numpy(), limit=1.0)
    name_cells(axes, shown.index, shown.columns, longest=14)
    return figure
