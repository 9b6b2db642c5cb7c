"""Pictures of columns one by one: what several tables hold, in common bins.

Bins suit the first table, which is drawn as an area; the others are outlines over it, and what lies far
outside its central 98 % may lie outside the picture.  Labels, truth values and whole numbers of few values
are bars side by side.  Heights are shares of the observed cells.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyrolatent.column import check_observed, numbers
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.plots.figures import (
    BLUE,
    OBSERVED,
    add_legend,
    add_note,
    distinct_colours,
    few_ticks,
    holds_labels,
    in_order,
    label_axes,
    new_panels,
    shortened,
)
from pyrolatent.shares import Array, Values, bins, shares

MOST_PANELS, MOST_ACROSS = 12, 5  # columns shown where none are named
MOST_BARS = 12  # levels of a column
TAIL, SLACK = 0.01, 0.25  # of the values on each side; of their range, what is seen beyond it
HEADROOM = 1.05
LETTERS = 18  # below a panel side by side


class Counted(NamedTuple):
    """Shares `(T, bins)` of the cells of a column of T tables, in bins with these ends `(bins + 1,)`.

    `levels` are what the bins are called, none of intervals; `more` labels have no bin.
    """

    edges: Array
    levels: tuple[str, ...]
    shares: Array
    more: int = 0


def marginal_histograms(
    tables: Mapping[str, pd.DataFrame], columns: Sequence[Hashable] | None = None
) -> Figure:
    """Draw the distribution of each column in several tables, a panel for each column.

    Args:
        tables: Name -> table; the first one is what the others are compared with.
        columns: Which ones to draw, in this order; by default those that all tables have, of more than 12
            the first 12.  Of more than 12 labels in one the most frequent are drawn.

    Raises:
        ArgumentError: There is no table, or more than ten; or a column is not in all of them.
        DataError: The tables have no columns in common, or every cell of a column is missing.
    """
    colours = [OBSERVED, *distinct_colours(tables)][: len(tables)]
    names, note = chosen(list(tables.values()), columns, MOST_PANELS)
    figure, panels = new_panels(len(names), 4, 2.1, 1.7)
    for axes, name in zip(panels, names, strict=True):
        counted = count([table[name] for table in tables.values()])
        draw_counted(axes, counted, colours)
        label_axes(axes, label_of(name, counted))
    add_note(figure, note)
    add_legend(figure, [Patch(color=colour) for colour in colours], list(tables))
    return figure


def histograms_over(
    tables: Mapping[float, pd.DataFrame],
    truth: pd.DataFrame,
    columns: Sequence[Hashable] | None = None,
    names: tuple[str, str] = ("true", "generated"),
) -> Figure:
    """Draw generated columns over the true ones: a row for each value of beta, a column for each column.

    Args:
        tables: Value of beta -> generated table.
        truth: The table they are compared with.
        columns: Which ones to draw, in this order; by default those that all tables have, of more than 5
            the first 5.
        names: What `truth` and the tables are.

    Raises:
        ArgumentError: There is no table, or a column is not in all of them.
        DataError: The tables have no columns in common, or every cell of a column is missing.
    """
    if not tables:
        raise ArgumentError("there are no tables to draw", remedy="pass {beta: table, ...}")
    shown, note = chosen([truth, *tables.values()], columns, MOST_ACROSS)
    across = len(shown)
    figure, panels = new_panels(across * len(tables), across, 1.8, 1.3, sharex="col", sharey="col")
    for place, name in enumerate(shown):
        counted = count([truth[name], *(table[name] for table in tables.values())])
        for row, (beta, axes) in enumerate(zip(tables, panels[place::across], strict=True)):
            last = row + 1 == len(tables)
            draw_counted(axes, counted._replace(shares=counted.shares[[0, row + 1]]), [OBSERVED, BLUE])
            axes.tick_params(labelbottom=last)
            label_axes(axes, label_of(name, counted) if last else "", "" if place else f"beta = {beta:g}")
        axes.set_ylim(0, HEADROOM * counted.shares.max())  # of the whole column, which shares it
    add_note(figure, note)
    add_legend(figure, [Patch(color=OBSERVED), Patch(color=BLUE)], names)
    return figure


def chosen(
    tables: Sequence[pd.DataFrame], columns: Sequence[Hashable] | None, most: int
) -> tuple[list[Hashable], str]:
    """Return the columns to draw, and what to say of those that are left out.

    Raises:
        ArgumentError: A column that was asked for is not in all tables.
        DataError: The tables have no columns in common.
    """
    common = [name for name in tables[0] if all(name in table for table in tables)]
    if not common:
        raise DataError("the tables have no columns in common", why=f"the first has {list(tables[0])}")
    asked = [] if columns is None else list(columns)
    unknown = [name for name in asked if name not in common]
    if unknown:
        raise ArgumentError("not in all tables", where=f"columns {unknown}", remedy=f"choose from {common}")
    if asked:
        return asked, ""
    note = f"{most} of {len(common)} columns; columns= chooses others" if len(common) > most else ""
    return common[:most], note


def count(columns: Sequence[pd.Series]) -> Counted:
    """Return the shares of one column of several tables in common bins.

    Raises:
        DataError: Every cell of one is missing.
    """
    for column in columns:
        check_observed(column)
    observed = [column.dropna() for column in columns]
    if any(holds_labels(column) for column in observed):
        return count_labels(observed)
    values = [numbers(column) for column in observed]
    edges, levels, _ = bins(Values("", central(values[0]), np.concatenate([*values[1:], []]), None))
    counted = np.stack([shares(value[None], edges)[0] for value in values])
    return Counted(edges, levels if len(levels) <= MOST_BARS else (), counted)


def central(values: Array) -> Array:
    """Return the values `(M,)` without those that lie far outside the central 98 %."""
    low, high = np.quantile(values, (TAIL, 1 - TAIL))
    slack = SLACK * (high - low)
    return values[(values >= low - slack) & (values <= high + slack)]


def count_labels(columns: Sequence[pd.Series]) -> Counted:
    """Return the shares of the most frequent labels of one column of several tables."""
    frequencies = [column.astype(object).value_counts(normalize=True) for column in columns]
    table = pd.concat(frequencies, axis=1).fillna(0.0)
    table = table.reindex(in_order(table.index, columns[0]))
    kept = np.sort(np.argsort(-table.mean(axis=1), kind="stable")[:MOST_BARS])
    edges: Array = np.arange(len(kept) + 1, dtype=np.float64) - 0.5
    levels = tuple(shortened(label, 12) for label in table.index[kept])
    return Counted(edges, levels, table.iloc[kept].to_numpy().T, len(table) - len(kept))


def draw_counted(axes: Axes, counted: Counted, colours: Sequence[str]) -> None:
    """Draw shares, the first as areas: bars side by side for levels, else outlines."""
    if counted.levels:
        draw_bars(axes, counted, colours)
    else:
        for shown, colour in zip(counted.shares, colours, strict=True):
            fill = colour == OBSERVED
            axes.stairs(shown, counted.edges, fill=fill, color=colour, lw=0 if fill else 1.4)
        few_ticks(axes.xaxis, 4)
    axes.set_yticks([])
    axes.margins(x=0.02)
    axes.set_ylim(0, HEADROOM * counted.shares.max())


def draw_bars(axes: Axes, counted: Counted, colours: Sequence[str]) -> None:
    """Draw bars side by side for each level, and name the levels."""
    places = (counted.edges[1:] + counted.edges[:-1]) / 2
    width = 0.84 / len(colours)
    for number, (shown, colour) in enumerate(zip(counted.shares, colours, strict=True)):
        shift = (number - (len(colours) - 1) / 2) * width
        axes.bar(places + shift, shown, width=width, color=colour)
    turned = 90 if sum(len(level) + 1 for level in counted.levels) > LETTERS else 0
    axes.set_xticks(places, counted.levels, rotation=turned, fontsize=8, parse_math=False)


def label_of(name: Hashable, counted: Counted) -> str:
    """Return what stands below a panel."""
    return shortened(name) + (f" (and {counted.more} labels more)" if counted.more else "")
