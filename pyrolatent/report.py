"""A report of a fit: one HTML page with its pictures inside, to read, print or send.

Warnings come first, then what was fitted, the summary, and pictures: correlations and what they
leave of the observed ones, completed cells, the trace of the log density.
"""

import math
import os
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

import jinja2
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.cells import cell_table, coverage
from pyrolatent.column import numbers
from pyrolatent.folders import write_text
from pyrolatent.impute import Imputations
from pyrolatent.infer.hmc import MAX_RHAT, MIN_ESS
from pyrolatent.plots import interval_plot, matrix_map, png_uri, trace_plot
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.saved_parts import model_name
from pyrolatent.store import MissingData
from pyrolatent.summary import summary

PROBABILITY = 0.9  # of the intervals of completed cells
MOST_ROWS = 60  # of one site, in the summary
MOST_CELLS, MOST_PANELS, PER_PANEL = 60, 12, 15  # completed cells, their columns, cells of one column
ROUNDING = 1e-12  # a standard deviation this small beside the mean is one of rounding errors
DASH = "\N{EN DASH}"
PIXELS = 96  # CSS pixels of an inch

State = dict[str, Any]


@final
@dataclass(frozen=True)
class Picture:
    """A picture inside the page; `width` in CSS pixels."""

    uri: str
    width: int
    words: str


def report(
    fit: Fit,
    path: str | os.PathLike[str] | None = None,
    imputations: Imputations | None = None,
    truth: pd.DataFrame | None = None,
) -> str:
    """Describe a fit on one page of HTML that needs no other file.

    Args:
        fit: A fit.
        path: Where to write the page; a file there is replaced.
        imputations: From `impute(fit)`; without them completed cells are not shown.
        truth: The completed table with the values that were hidden, to be drawn beside the
            intervals.

    Returns:
        The page.

    Raises:
        StoreError: The page cannot be written.
        DataError: `truth` has other rows or columns than the completed table.
    """
    page = template().render(
        name=model_name(fit.pair),
        data=data_in_words(fit),
        warnings=fit.warnings,
        facts=facts(fit),
        columns=column_rows(fit),
        sites=site_tables(fit),
        limits={"rhat": MAX_RHAT, "ess": MIN_ESS},
        correlations=correlations(fit),
        completed=None if imputations is None else completed(imputations, truth),
        trace=trace(fit),
        version=fit.info["versions"]["pyrolatent"],
    )
    if path is not None:
        write_text(path, page)
    return page


def template() -> jinja2.Template:
    """Return the page; what stands in a table's cells or names is text to it, never HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyrolatent"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template("report.html")


def number(value: float, form: str = ".4g") -> str:
    """Return a number for a table, a dash for none."""
    return format(value, form).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else DASH


def picture(figure: Figure, words: str) -> Picture:
    """Return a figure as a picture for the page; `words` stand for it where it cannot be seen."""
    return Picture(png_uri(figure), round(PIXELS * figure.get_figwidth()), words)


# What was fitted


def data_in_words(fit: Fit) -> str:
    """Return the size of the table, or of each entry of the data."""
    if isinstance(fit.data, MissingData):
        return "saved without its data"
    frame = fit.problem.frame
    if frame is None or fit.schema is None:
        sizes = {n: f"{tuple(v.shape)}" if isinstance(v, Tensor) else repr(v) for n, v in fit.data.items()}
        return ", ".join(f"{name} {size}" for name, size in sizes.items())
    cells = frame[list(fit.schema.names)].isna().to_numpy()
    share = f"{100 * cells.mean():.1f} % of their cells missing"
    return f"{len(frame):,} rows, {cells.shape[1]} modelled columns, {share}"


def facts(fit: Fit) -> list[tuple[str, str]]:
    """Return what was fitted and how it ran, line by line."""
    info, problem = fit.info, fit.problem
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in info["seconds"].items())
    ran = [f"rung {fit.rung}", info["reason"], "compiled" if info["compiled"] else "not compiled"]
    tuning = [f"step size {info['step_size']:.3g}", f"path length {info['path_length']:.3g}"]
    return [
        ("Model", model_name(fit.pair) + settings(fit.pair)),
        ("Method", repr(fit.method)),
        ("Seed", str(fit.seed)),
        ("Numbers", f"{str(problem.dtype).removeprefix('torch.')} on {problem.device}"),
        ("Ran", ", ".join(part for part in ran + tuning if part)),
        ("Seconds", f"{sum(info['seconds'].values()):.1f} ({seconds})"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())),
    ]


def settings(pair: Any) -> str:
    """Return the settings of a pair that are single values, such as (eta=1.0)."""
    values = {f.name: getattr(pair, f.name) for f in fields(pair)} if is_dataclass(pair) else {}
    single = [f"{name}={value!r}" for name, value in values.items() if isinstance(value, bool | int | float)]
    return f"({', '.join(single)})" if single else ""


def column_rows(fit: Fit) -> list[State]:
    """Return name, kind, dtype and missing cells of each column of the table."""
    frame, schema = fit.problem.frame, fit.schema
    if frame is None or schema is None or not len(frame):
        return []
    missing = frame.isna().sum()
    return [
        {"name": c.name, "kind": c.kind, "dtype": c.dtype, "missing": missing[c.name] / len(frame)}
        for c in schema.columns
    ]


def site_tables(fit: Fit) -> list[State]:
    """Return the summary site by site."""
    table, start, tables = summary(fit), 0, []
    for name, draws in fit.samples.items():
        size = draws[0, 0].numel()
        tables.append(site_table(name, table.iloc[start : start + size]))
        start += size
    return tables


def site_table(name: str, rows: pd.DataFrame) -> State:
    """Return the worst diagnostics of one site and at most 60 of its rows."""
    shown = rows.head(MOST_ROWS)
    constant = shown["sd"] <= ROUNDING * shown["mean"].abs()
    records = shown.assign(sd=shown["sd"].mask(constant, 0.0)).to_dict("records")
    worst = {"rhat": rows["rhat"].max(), "ess": rows["ess"].min()}
    return {"name": name, "size": len(rows), "rows": list(zip(shown.index, records, strict=True)), **worst}


# Pictures


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


def completed(imputations: Imputations, truth: pd.DataFrame | None) -> State:
    """Return pictures of some completed cells, column by column, those with most holes first."""
    cells = cell_table(imputations, PROBABILITY, truth)
    columns = cells["column"].value_counts(sort=True).index[:MOST_PANELS]
    each = min(PER_PANEL, MOST_CELLS // max(len(columns), 1))
    panels = []
    for name in (c for c in imputations.schema.names if c in columns):
        of_column = cells[cells["column"] == name]
        some = of_column.iloc[evenly_spaced(len(of_column), each).numpy()]
        observed = numbers(imputations.frame[name].dropna())
        panels.append((name, picture(interval_plot(some, observed), f"intervals of missing cells of {name}")))
    return {
        "panels": panels,
        "shown": sum(min(each, count) for count in cells["column"].value_counts()[columns]),
        "cells": len(cells),
        "columns": cells["column"].nunique(),
        "draws": len(imputations.cells),
        "probability": PROBABILITY,
        "coverage": None if truth is None else coverage(cells),
    }


def trace(fit: Fit) -> Picture:
    """Return the trace of the log density."""
    figure = trace_plot(fit.sample_stats["lp"].numpy(), "log density (nats)")
    return picture(figure, "log density of every chain by draw")
