"""Pictures of how a sampler ran and of what a fit predicts: curves over draws, ranks and values."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrolatent.plots.figures import (
    BLUE,
    INK,
    OBSERVED,
    ORANGE,
    PAGE,
    SOFT,
    label_axes,
    new_figure,
    shortened,
)
from pyrolatent.shares import Array, Check

MOST_POINTS = 2_000  # of one line
TAILS = (0.05, 0.95)
MOST_TICKS = 12
LETTERS = 36  # that fit below a check side by side
LIGHTEST = 1e-2  # weight that is drawn, in those of equal ones


def trace_plot(draws: Array, label: str) -> Figure:
    """Draw one number of every chain over the draws, and the mean of all chains.

    Args:
        draws: `(chain, draw)`.
        label: What the number is.
    """
    chains, length = draws.shape
    figure, axes = new_figure(PAGE, 2.6)
    draw_lines(axes, np.arange(length), draws, colour=BLUE, width=0.6, alpha=max(0.2, 0.8 / chains**0.5))
    if chains > 1:
        axes.plot(draws.mean(0), color=INK, lw=1.2)
    axes.autoscale_view()
    axes.margins(x=0)
    label_axes(axes, "draw", label)
    return figure


def weight_plot(raw: Array, smoothed: Array) -> Figure:
    """Draw importance weights from the largest to the smallest, beside equal ones.

    Args:
        raw: Logs of weights `(draw,)`, up to a constant.
        smoothed: The same, the largest ones smoothed.
    """
    figure, axes = new_figure(PAGE, 2.6)
    ranks = np.arange(1, len(raw) + 1)
    shares = sorted_shares(raw), sorted_shares(smoothed)
    for share, colour, width in zip(shares, (ORANGE, BLUE), (2.4, 1.2), strict=True):
        axes.plot(ranks, share, color=colour, lw=width)
    axes.axhline(1 / len(raw), color=SOFT, lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, max(len(raw), 2))
    axes.set_ylim(LIGHTEST / len(raw), 2 * max(share[0] for share in shares))
    label_axes(axes, "draws, the heaviest first", "share of the weight")
    return figure


def sorted_shares(logs: Array) -> Array:
    """Return weights of these logs `(draw,)` as shares of their sum, the largest first."""
    weights = np.exp(logs - logs.max())
    return np.sort(weights / weights.sum())[::-1]


def check_plot(check: Check) -> Figure:
    """Draw the shares of observed values in bins, and those of predictive draws over them."""
    figure, axes = new_figure(3.6, 2.0)
    draw_shares = draw_levels if check.levels else draw_bins
    draw_shares(axes, check)
    ends = np.quantile(check.posterior, TAILS[1], axis=0) if not check.marks.size else check.posterior.mean(0)
    axes.set_ylim(0, 1.08 * max(ends.max(), 0 if check.marks.size else check.observed.max(), 1e-9))
    axes.margins(x=0.02)
    axes.set_yticks([])
    return figure


def draw_levels(axes: Axes, check: Check) -> None:
    """Draw bars for what was observed, points with intervals for what is predicted."""
    places = np.arange(len(check.levels)) + (check.edges[0] + check.edges[1]) / 2
    low, high = np.quantile(check.posterior, TAILS, axis=0)
    axes.bar(places, check.observed, width=0.8, color=OBSERVED)
    axes.vlines(places, low, high, color=BLUE, lw=2)
    axes.plot(places, check.posterior.mean(0), "o", color=BLUE, ms=4)
    if check.prior is not None:
        axes.plot(places, check.prior.mean(0), "_", color=ORANGE, ms=9, mew=1.4)
    every = -(-len(places) // MOST_TICKS)
    texts = [shortened(level, 12) for level in check.levels[::every]]
    turned = 90 if sum(len(text) + 2 for text in texts) > LETTERS else 0
    axes.set_xticks(places[::every], texts, rotation=turned, fontsize=8, parse_math=False)


def draw_bins(axes: Axes, check: Check) -> None:
    """Draw outlines: filled for what was observed, a line with its band for what is predicted."""
    if check.logs:
        axes.set_xscale("log")
    if check.marks.size:
        for mark in check.marks:
            axes.axvline(mark, color=SOFT, lw=2)
    else:
        axes.stairs(check.observed, check.edges, fill=True, color=OBSERVED, lw=0)
        low, high = (np.append(ends, ends[-1]) for ends in np.quantile(check.posterior, TAILS, axis=0))
        axes.fill_between(check.edges, low, high, step="post", color=BLUE, alpha=0.3, lw=0)
    axes.stairs(check.posterior.mean(0), check.edges, baseline=None, color=BLUE, lw=1.6)
    if check.prior is not None:
        axes.stairs(check.prior.mean(0), check.edges, baseline=None, color=ORANGE, lw=1.2, ls="--")


def draw_lines(
    axes: Axes,
    x: NDArray[np.generic],
    lines: Array,
    *,
    colour: str,
    width: float,
    alpha: float = 1.0,
    style: str = "-",
) -> None:
    """Draw each row of `lines (R, T)` over `x (T,)`, thinned to at most 2,000 points."""
    every = -(-len(x) // MOST_POINTS)
    points = np.stack(np.broadcast_arrays(x[::every], lines[:, ::every]), axis=-1)
    bundle = LineCollection(list(points), colors=colour, linewidths=width, alpha=alpha, linestyles=style)
    axes.add_collection(bundle)
