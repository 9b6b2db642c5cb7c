"""A picture of a test: the mean of each arm, and how much others are above the control."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrolatent.plots.figures import BLUE, INK, PAGE, SOFT, label_axes, new_panels, shortened

ROW = 0.45  # inches
AROUND = 0.9


def arm_plot(arms: pd.DataFrame, lift: pd.DataFrame, outcome: str) -> Figure:
    """Draw means and uplifts with their 90 % intervals.

    Args:
        arms: By arm: `mean`, `low` and `high`.
        lift: By other arm: `absolute`, `absolute_low` and `absolute_high`.
        outcome: What was measured.
    """
    height = AROUND + ROW * len(arms)
    figure, (means, lifts) = new_panels(2, 2, PAGE / 2, height)
    draw_intervals(means, arms[["mean", "low", "high"]])
    draw_intervals(lifts, lift[["absolute", "absolute_low", "absolute_high"]])
    lifts.axvline(0, color=SOFT, lw=0.8, ls="--")
    label_axes(means, f"mean of {shortened(outcome)}")
    label_axes(lifts, "above the control")
    return figure


def draw_intervals(axes: Axes, lines: pd.DataFrame) -> None:
    """Draw a dot and its interval for each line of a table: middle, low, high."""
    places = np.arange(len(lines))[::-1]
    middle, low, high = lines.to_numpy(float).T
    axes.hlines(places, low, high, color=BLUE, lw=2)
    axes.plot(middle, places, "o", color=INK, ms=5)
    axes.set_yticks(places, [shortened(name) for name in lines.index])
    axes.set_ylim(-0.5, len(lines) - 0.5)
    axes.margins(x=0.15)
