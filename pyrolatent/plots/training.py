"""Pictures of losses over the steps of fits that learnt."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyrolatent.errors import ArgumentError
from pyrolatent.infer.svi import SVI
from pyrolatent.plots.curves import draw_lines
from pyrolatent.plots.figures import (
    BLUE,
    INK,
    ORANGE,
    PAGE,
    STEEP,
    add_legend,
    distinct_colours,
    label_axes,
    new_figure,
)
from pyrolatent.result import Fit
from pyrolatent.shares import Array

SMOOTHED = 50  # parts of a run over which losses are averaged
START = 0.05  # part of a run whose losses need not be seen
IN_ALL, PER_ROW = "loss (nats)", "loss (nats a row)"


class Losses(NamedTuple):
    """Losses in nats: `train (refit, step)`, and of held-out rows `validation (refit, check)`."""

    train: Array
    validation: Array | None = None


def training_curves(fits: Fit | Mapping[str, Fit], per_row: bool = False) -> Figure:
    """Draw losses of one fit or of several: averages over 2 % of the run, and held-out rows.

    Of one fit those of the steps are drawn faintly, too.  The scale is logarithmic where losses are
    positive and fall far; else the first steps may lie above the picture.

    Args:
        fits: A fit of a method that learns by steps, or name -> fit.
        per_row: Whether to divide losses by the number of rows learnt from, so that those of tables of
            different sizes compare.

    Raises:
        ArgumentError: A fit has no losses, or no rows to divide them by; or there is none, or more than ten.
    """
    label = PER_ROW if per_row else IN_ALL
    if not isinstance(fits, Fit):
        found = {name: known_losses(fit, per_row, f"fit {name!r}") for name, fit in fits.items()}
        return losses_together(found, label)
    losses = known_losses(fits, per_row)
    figure = loss_plot(*losses, label)
    words = ["training"] if losses.validation is None else ["training", "held-out rows"]
    lines = [Line2D([], [], color=colour) for colour in (BLUE, ORANGE)]
    add_legend(figure, lines[: len(words)], words)
    return figure


def known_losses(fit: Fit, per_row: bool, where: str = "") -> Losses:
    """Return the losses of a fit, those of one row if wanted.

    Raises:
        ArgumentError: It has none, or no rows.
    """
    losses = losses_of(fit)
    if losses is None:
        remedy = "draw fits of a method that learns by steps, as SVI() does"
        raise ArgumentError("there are no losses to draw", where=where, remedy=remedy)
    return each_row(losses, fit, where) if per_row else losses


def each_row(losses: Losses, fit: Fit, where: str) -> Losses:
    """Return losses divided by the number of rows learnt from; those held out are scaled to that number.

    Raises:
        ArgumentError: The model has no rows.
    """
    if not fit.sites.rows:
        remedy = "draw them with per_row=False"
        raise ArgumentError("there are no rows to divide losses by", where=where, remedy=remedy)
    held_out = fit.method.validation_fraction if isinstance(fit.method, SVI) else 0.0
    rows = fit.sites.rows - round(held_out * fit.sites.rows)
    train, validation = losses
    return Losses(train / rows, None if validation is None else validation / rows)


def losses_together(found: Mapping[str, Losses], label: str) -> Figure:
    """Draw the averaged losses of several fits, those of held-out rows dashed."""
    figure, axes = new_figure(PAGE, 3.0)
    colours = distinct_colours(found)
    drawn = [
        draw_averages(axes, losses, (colour, colour), "--")
        for losses, colour in zip(found.values(), colours, strict=True)
    ]
    smooth, shown = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    finish(axes, max(losses.train.shape[1] for losses in found.values()), smooth, shown, label)
    lines, names = [Line2D([], [], color=colour) for colour in colours], list(found)
    if any(losses.validation is not None for losses in found.values()):
        lines, names = [*lines, Line2D([], [], color=INK, ls="--")], [*names, "held-out rows"]
    add_legend(figure, lines, names)
    return figure


def losses_of(fit: Fit) -> Losses | None:
    """Return the losses of a fit, if it has any."""
    train, validation = (
        None if losses is None or not losses.numel() else losses.double().numpy()
        for losses in (fit.losses.get("train"), fit.losses.get("validation"))
    )
    return None if train is None else Losses(train, validation)


def loss_plot(train: Array, validation: Array | None = None, label: str = IN_ALL) -> Figure:
    """Draw the losses of every refit: those of the steps faintly, their averages over 2 % of the run firmly.

    The scale is logarithmic where losses are positive and fall far; else the first steps may lie
    above the picture.

    Args:
        train: `(refit, step)`, in nats.
        validation: Of held-out rows at evenly spaced steps `(refit, check)`.
        label: What the losses are.
    """
    length = train.shape[1]
    figure, axes = new_figure(PAGE, 2.6)
    draw_lines(axes, np.arange(1, length + 1), train, colour=BLUE, width=0.6, alpha=0.25)
    finish(axes, length, *draw_averages(axes, Losses(train, validation), (BLUE, ORANGE)), label)
    return figure


def draw_averages(
    axes: Axes, losses: Losses, colours: tuple[str, str], style: str = "-"
) -> tuple[Array, Array]:
    """Draw averaged losses and those of held-out rows; return the former, and all that are to be seen."""
    length = losses.train.shape[1]
    window = max(1, length // SMOOTHED)
    smooth = running_mean(losses.train, window)
    draw_lines(axes, np.arange(window, length + 1), smooth, colour=colours[0], width=1.4)
    shown = [smooth[:, int(START * length) :].ravel()]
    if losses.validation is not None:
        checks = losses.validation.shape[1]
        steps = np.arange(1, checks + 1) * length / checks
        draw_lines(axes, steps, losses.validation, colour=colours[1], width=1.4, style=style)
        shown.append(losses.validation[:, int(START * checks) :].ravel())
    return smooth.ravel(), np.concatenate(shown)


def running_mean(values: Array, window: int) -> Array:
    """Return means of `window` neighbours `(R, T - window + 1)` of `values (R, T)`."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    return (sums[:, window:] - sums[:, :-window]) / window


def finish(axes: Axes, length: int, smooth: Array, shown: Array, label: str) -> None:
    """Choose the scale of losses and a range that holds those that are to be seen, and name the axes."""
    axes.set_xlim(1, max(length, 2))
    smooth, shown = smooth[np.isfinite(smooth)], shown[np.isfinite(shown)]
    if smooth.size and smooth.min() > 0 and smooth.max() > STEEP * smooth.min():
        axes.set_yscale("log")
        axes.autoscale_view(scalex=False)
    elif shown.size:
        low, high = float(shown.min()), float(shown.max())
        margin = 0.08 * (high - low) or 0.5
        axes.set_ylim(low - margin, high + margin)
    label_axes(axes, "step", label)
