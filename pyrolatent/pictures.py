"""The pictures of a report: what each shows of a fit, with the words that stand beside it.

A picture is left out, by returning None, where the fit has nothing to show in it.
"""

import base64
import math
import re
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrolatent.cells import cell_table, coverage
from pyrolatent.column import numbers
from pyrolatent.errors import PyrolatentError
from pyrolatent.imputations import Imputations
from pyrolatent.model_graph import SiteRow, drawn_graph
from pyrolatent.plots.cells import interval_plot, level_plot
from pyrolatent.plots.curves import check_plot, trace_plot, weight_plot
from pyrolatent.plots.figures import png_uri
from pyrolatent.plots.matrices import matrix_map
from pyrolatent.plots.training import loss_plot, losses_of
from pyrolatent.predictive_checks import predictive_checks
from pyrolatent.psis import reliable_k, weights_ess
from pyrolatent.result import Fit, evenly_spaced

PROBABILITY = 0.9  # of the intervals of completed cells
MOST_CELLS, MOST_PANELS, PER_PANEL = 60, 12, 15  # completed cells, their columns, cells of one column
PIXELS, POINTS = 96, 72  # CSS pixels and points of an inch
HALF = 0.5  # Pareto k below which the weights have a variance

State = dict[str, Any]


@final
@dataclass(frozen=True)
class Picture:
    """A picture inside the page; `width` in CSS pixels, `words` stand for it where it cannot be seen."""

    uri: str
    width: int
    words: str


def picture(figure: Figure, words: str) -> Picture:
    """Return a figure as a picture for the page."""
    return Picture(png_uri(figure), round(PIXELS * figure.get_figwidth()), words)


# The model


def graph(fit: Fit, rows: list[SiteRow]) -> Picture | None:
    """Return the graph of the model where Pyro can draw it."""
    svg = drawn_graph(fit, len(rows))
    if svg is None:
        return None
    width = re.search(r'<svg width="(\d+)pt"', svg)
    edges = [f"{row.name} depends on {', '.join(row.parents)}" for row in rows if row.parents]
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    points = int(width[1]) if width else 600
    return Picture(uri, round(points * PIXELS / POINTS), "graph of the model: " + "; ".join(edges))


def checks(fit: Fit) -> State | None:
    """Return observed beside predicted distributions, those that differ most, or why there are none."""
    if not fit.sites.observed:
        return None
    try:
        found = predictive_checks(fit)
    except PyrolatentError as error:
        return {"panels": [], "reason": str(error)}
    shown = sorted(found.checks, key=lambda check: -check.distance)[:MOST_PANELS]
    panels = [
        (check.name, picture(check_plot(check), f"observed and predicted distribution of {check.name}"))
        for check in found.checks
        if check in shown
    ]
    return {
        "panels": panels,
        "reason": "" if panels else "the observed sites hold no values",
        "number": len(found.checks),
        "draws": found.num_draws,
        "no_prior": found.no_prior,
    }


def correlations(fit: Fit) -> State | None:
    """Return the posterior mean of the correlations, and what it leaves of the observed ones."""
    draws, schema = fit.samples.get("correlation"), fit.schema
    size = len(schema.names) if schema else 0
    if draws is None or schema is None or size < 2 or draws.shape[2:] != (size, size):
        return None
    mean = draws.double().mean((0, 1)).numpy()
    fitted = matrix_map(mean, schema.names, limit=1.0, label="posterior mean correlation")
    shown: State = {"fitted": picture(fitted, "posterior mean correlations"), "residuals": None}
    frame = fit.problem.frame
    if frame is None or not len(frame):
        return shown
    residuals = mean - pairwise_correlation(fit)
    off_diagonal = np.abs(residuals[~np.eye(size, dtype=bool)])
    largest = float(np.nanmax(off_diagonal))
    left = matrix_map(residuals, schema.names, limit=largest, label="fitted minus observed", colours="PuOr_r")
    shown["residuals"] = picture(left, "fitted minus observed correlations")
    return shown | {"mean": float(np.nanmean(off_diagonal)), "largest": largest}


def pairwise_correlation(fit: Fit) -> NDArray[np.float64]:
    """Return the correlations (D, D) of the encoded columns, each from the rows that have both cells."""
    x, mask = fit.data["x"].cpu().double(), fit.data["mask"].cpu()
    return pd.DataFrame(x.where(mask, torch.nan).numpy()).corr().to_numpy()


# Completed cells


def completed(imputations: Imputations, truth: pd.DataFrame | None) -> State:
    """Return pictures of some completed cells, column by column, those with most holes first."""
    cells = cell_table(imputations, PROBABILITY, truth)
    columns = cells["column"].value_counts(sort=True).index[:MOST_PANELS]
    each = min(PER_PANEL, MOST_CELLS // max(len(columns), 1))
    panels = []
    for column in (c for c in imputations.schema.modelled if c.name in columns):
        of_column = cells[cells["column"] == column.name]
        some = evenly_spaced(len(of_column), each).numpy()
        if column.categories:
            figure = level_plot(imputations.probabilities(column.name).iloc[some])
            words = f"probabilities of the labels of missing cells of {column.name}"
        else:
            observed = numbers(imputations.frame[column.name].dropna())
            figure = interval_plot(of_column.iloc[some], observed)
            words = f"intervals of missing cells of {column.name}"
        panels.append((column.name, picture(figure, words)))
    return {
        "panels": panels,
        "shown": sum(min(each, count) for count in cells["column"].value_counts()[columns]),
        "cells": len(cells),
        "columns": cells["column"].nunique(),
        "labels": any(column.categories for column in imputations.schema.modelled),
        "draws": len(imputations.cells),
        "probability": PROBABILITY,
        "coverage": None if truth is None else coverage(cells),
    }


# How it ran


def trace(fit: Fit) -> Picture | None:
    """Return the trace of the log density of a sampler's chains."""
    if "diverging" not in fit.sample_stats or "lp" not in fit.sample_stats:
        return None
    figure = trace_plot(fit.sample_stats["lp"].numpy(), "log density (nats)")
    return picture(figure, "log density of every chain by draw")


def losses(fit: Fit) -> State | None:
    """Return the losses over the steps of a fit that learnt."""
    found = losses_of(fit)
    if found is None:
        return None
    figure = loss_plot(*found)
    refits, steps = found.train.shape
    return {
        "picture": picture(figure, f"loss of {refits} refits over {steps} steps"),
        "steps": steps,
        "refits": refits,
        "validation": found.validation is not None,
    }


def weights(fit: Fit) -> State | None:
    """Return the importance weights, and how far they can be trusted."""
    if fit.weights is None:
        return None
    raw, smoothed, k = fit.weights.raw.double(), fit.weights.smoothed.double(), fit.weights.pareto_k
    return {
        "picture": picture(weight_plot(raw.numpy(), smoothed.numpy()), "importance weights, heaviest first"),
        "judgement": judgement(k, reliable_k(len(raw))),
        "draws": len(raw),
        "ess": weights_ess(smoothed),
        "largest": float(smoothed.max().exp()),
    }


def judgement(k: float, limit: float) -> str:
    """Return what Pareto k says of the weights."""
    if k == -math.inf:
        return "The largest weights are all equal, so the proposal is the posterior."
    if not k < limit:
        return f"Pareto k is {k:.2f}, and only below {limit:.2f} could the weights be trusted."
    close = ", and have a finite variance" if k < HALF else ""
    return f"Pareto k is {k:.2f} (< {limit:.2f}): the smoothed weights can be trusted{close}."
