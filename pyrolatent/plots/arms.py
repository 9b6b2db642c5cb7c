"""A picture of a test: the mean of each arm, and how much others are above the control."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrolatent.plots.figures import (
    BAND,
    BLUE,
    INK,
    PAGE,
    SOFT,
    add_note,
    few_ticks,
    label_axes,
    new_panels,
    shortened,
)

ROW = 0.45  # inches
AROUND = 1.1
MOST_TICKS = 6


def arm_plot(
    arms: pd.DataFrame, lift: pd.DataFrame, outcome: str, control: Any, rope: tuple[float, float] | None
) -> Figure:
    """Draw means and uplifts with their 90 % intervals.

    Args:
        arms: By arm: `mean`, `low` and `high`.
        lift: By other arm: `absolute`, `absolute_low` and `absolute_high`.
        outcome: What was measured.
        control: The arm that others are compared with.
        rope: Differences that are as good as none, from and to: a grey band.
    """
    height = AROUND + ROW * len(arms)
    figure, (means, lifts) = new_panels(2, 2, PAGE / 2, height)
    draw_intervals(means, arms[["mean", "low", "high"]])
    draw_intervals(lifts, lift[["absolute", "absolute_low", "absolute_high"]])
    lifts.axvline(0, color=SOFT, lw=0.8, ls="--")
    if rope is not None:
        lifts.axvspan(*rope, color=BAND, zorder=0)
    for axes in (means, lifts):
        few_ticks(axes.xaxis, MOST_TICKS)
    label_axes(means, f"mean of {shortened(outcome)}")
    label_axes(lifts, f"above {shortened(control)}")
    grey = "" if rope is None else "; grey: differences as good as none"
    add_note(figure, f"90 % intervals{grey}")
    return figure


def draw_intervals(axes: Axes, lines: pd.DataFrame) -> None:
    """Draw a dot and its interval for each line of a table: middle, low, high."""
    places = np.arange(len(lines))[::-1]
    numbers = lines.to_numpy(float)
    middle, low, high = np.where(np.isfinite(numbers), numbers, np.nan).T
    axes.hlines(places, low, high, color=BLUE, lw=2)
    axes.plot(middle, places, "o", color=INK, ms=5)
    axes.set_yticks(places, [shortened(name) for name in lines.index])
    axes.set_ylim(-0.5, len(lines) - 0.5)
    axes.margins(x=0.15)
