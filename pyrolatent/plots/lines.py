"""Pictures of lines: columns over the values of a latent, scores over a setting."""

from collections.abc import Hashable, Mapping
from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pyrolatent.column import holds_numbers, numbers
from pyrolatent.errors import DataError
from pyrolatent.plots.figures import (
    OBSERVED,
    PAGE,
    PALETTE,
    STEEP,
    add_legend,
    distinct_colours,
    few_ticks,
    label_axes,
    new_figure,
    new_panels,
)

FAR = 1_000.0  # largest over smallest value, from which on only powers of ten are marked
STILL = 0.01  # of the movement of the column that moves most


def traversal_lines(rows: pd.DataFrame, label: str = "columns, in their units") -> Figure:
    """Draw the numeric columns of a traversal over the values of the latent, on two scales.

    Left on a linear scale, right on one that is linear near zero and logarithmic further out, where columns
    of all sizes can be seen.  The ten that move most have colours, in turn the next one of the left and of
    the right; others are grey, as are those that do not move.

    Args:
        rows: `(T, D)`, as `traverse` returns them for a table: the index holds the values of the latent and
            has its name.
        label: What the numbers are, for rows in other units.

    Raises:
        DataError: There are fewer than two rows, or no columns of numbers.
    """
    lines = numeric_lines(rows)
    colours = dict(zip(moving(lines), PALETTE, strict=False))
    figure, panels = new_panels(2, 2, PAGE / 2, 3.0)
    handles = {}
    for axes in panels:
        for name in lines:
            colour, above = colours.get(name, OBSERVED), 2 + (name in colours)
            (handles[name],) = axes.plot(lines.index, lines[name], color=colour, lw=1.5, zorder=above)
        axes.margins(x=0)
        few_ticks(axes.xaxis, 5)
    near = near_zero(lines[list(colours)])
    panels[1].set_yscale("symlog", linthresh=near)
    few_ticks(panels[0].yaxis, 6)
    words = (label, f"the same, logarithmic from ±{near:g} on")
    for axes, text in zip(panels, words, strict=True):
        label_axes(axes, str(rows.index.name or "latent"), text)
    others = [name for name in lines if name not in colours]
    shown = [*colours, *others[:1]]
    names = [*colours, *([f"others ({len(others)})"] if others else [])]
    add_legend(figure, [handles[name] for name in shown], names, beside=True)
    return figure


def numeric_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of numbers, in the order of the latent's values.

    Raises:
        DataError: There are fewer than two rows, or no columns of numbers.
    """
    names = [name for name in rows if holds_numbers(rows[name])]
    if len(rows) < 2 or not names:
        raise DataError(
            "there are no lines to draw",
            why=f"{len(rows)} rows with {len(names)} columns of numbers",
            remedy="traverse a table with numbers over two values or more",
        )
    return pd.DataFrame({name: numbers(rows[name]) for name in names}, rows.index).sort_index()


def near_zero(lines: pd.DataFrame) -> float:
    """Return the power of ten, at most 1, up to which a scale is linear so that all columns can be seen."""
    largest = lines.abs().max()
    return float(min(1.0, 10 ** np.floor(np.log10(largest.min())))) if len(largest) else 1.0


def moving(lines: pd.DataFrame) -> list[Hashable]:
    """Return the columns that move, in turn the next that moves most on the one scale and on the other."""
    ranges = [scale.max() - scale.min() for scale in (lines, np.arcsinh(lines))]
    orders = [of.sort_values(ascending=False, kind="stable").index for of in ranges]
    moved = np.logical_or(*(of > STILL * of.max() for of in ranges))
    return [name for name in dict.fromkeys(chain(*zip(*orders, strict=True))) if moved[name]]


def lines_over(values: Mapping[str, pd.Series], label: str, name: str = "beta") -> Figure:
    """Draw scores over the values of a setting, a line for each series.

    The setting has a logarithmic scale where its values are positive and more than a factor of 20 apart.

    Args:
        values: Name of the line -> scores, whose index holds the values of the setting.
        label: What the scores are.
        name: What the setting is called.

    Raises:
        ArgumentError: There is no series, or more than ten.
        DataError: A series is empty, or its index or scores are no numbers.
    """
    figure, axes = new_figure(PAGE / 2 + 1, 3.0)
    handles, settings = [], []
    for line, colour in zip(values, distinct_colours(values), strict=True):
        scores = checked(line, values[line])
        handles += axes.plot(scores.index, scores, "o-", color=colour, lw=1.6, ms=4)
        settings.append(scores.index.to_numpy())
    every = np.concatenate(settings)
    if every.min() > 0 and every.max() > STEEP * every.min():
        axes.set_xscale("log", subs=[])
        marks = (1.0, 2.0, 5.0) if every.max() < FAR * every.min() else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=marks))
        axes.xaxis.set_major_formatter("{x:g}")
    label_axes(axes, name, label)
    add_legend(figure, handles, list(values))
    return figure


def checked(line: str, scores: pd.Series) -> pd.Series:
    """Return the scores of a line in the order of the setting.

    Raises:
        DataError: There are none, or its index or scores are no numbers.
    """
    if scores.empty or not holds_numbers(scores) or not holds_numbers(scores.index.to_series()):
        raise DataError(
            "a line needs numbers over numbers",
            where=f"line {line!r}",
            why=f"got {len(scores)} scores, {scores.dtype} over {scores.index.dtype}",
            remedy="index the scores by the values of the setting",
        )
    return scores.sort_index()
